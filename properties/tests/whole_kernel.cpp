// One verb finds a fault in a value, in a gradient and on an exceptional value, and accepts the kernel without it.

#include "../whole_kernel.hpp"
#include "planted.hpp"

#include <cmath>

using namespace kdacheck;
using namespace kdacheck::tests;

namespace {

Finding verb(const Kernel& kernel) {
  static Judge judge;
  return expect_right(kernel, regime_named("usual-decay")->draw(3, Tier::quick), judge);
}

} // namespace

TEST_CASE("a right kernel is right in values, gradients and on exceptional values") {
  for (const char* name : {"cpu.recurrence.fp32", "cpu.chunk64.bf16", "cpu.dplr.chunk16.fp32"}) {
    INFO(name);
    const Finding finding = verb(built_in(name));
    INFO(finding.detail);
    CHECK(finding.verdict == Verdict::passed);
    CHECK(finding.bound_util > 0);
  }
}

TEST_CASE("a wrong value, a wrong gradient and a spreading NaN are each found, and named") {
  const Kernel& right = built_in("cpu.recurrence.fp32");
  Kernel wrong = right;
  wrong.forward = [&](const Inputs& in, const Outputs& out, std::span<std::byte> workspace) {
    right.forward(in, out, workspace);
    scale_all(out.o, 1.001f);
  };
  CHECK(verb(wrong).detail.starts_with("agrees-with-the-oracle"));
  CHECK(is_failure(verb(wrong).verdict));

  wrong = right;
  wrong.backward = [&](const Inputs& in, const Cotangents& loss, const GradientOutputs& out, std::span<std::byte> workspace) {
    right.backward(in, loss, out, workspace);
    scale_all(out[Input::g], 1.001f);
  };
  CHECK(verb(wrong).detail.starts_with("gradients-agree-with-the-oracle"));
  CHECK(is_failure(verb(wrong).verdict));

  wrong = right;
  wrong.forward = [&](const Inputs& in, const Outputs& out, std::span<std::byte> workspace) {
    right.forward(in, out, workspace);
    bool any = false;
    for (Input input : {Input::q, Input::k, Input::v, Input::g})
      for (std::int64_t i = 0; i < in[input].elements(); ++i) any = any || std::isnan(load(in[input], i));
    if (any) scale_all(out.o, NAN);
  };
  CHECK(verb(wrong).detail.starts_with("a-nan-stays-in-its-place"));
  CHECK(is_failure(verb(wrong).verdict));
}
