// Kernels on device memory, with a library that stands in for the CUDA runtime (kernels/plugin/tests/fake_cudart.c): what
// the gate does, not what a device does.

#include "../../kernels/plugin/plugin_kernels.hpp"
#include "../campaign.hpp"
#include "checked.hpp"

#include <catch2/catch.hpp>

#include <cstdlib>

using namespace kdacheck;
using namespace kdacheck::tests;

namespace {

std::vector<Kernel> with_fake_device() {
  setenv("KDACHECK_CUDART", KDACHECK_FAKE_CUDART, 1);
  unsetenv("KDACHECK_FAKE_CUDA_DEVICES");
  return plugin_kernels(KDACHECK_DEVICE_PLUGIN);
}

CaseResult verdict_on(const Kernel& kernel, const char* law, const char* regime, std::uint64_t seed = 1) {
  static Judge judge;
  return run_case(kernel, property_named(law), fitted(regime_named(regime)->draw(seed, Tier::quick), kernel.contract), judge);
}

} // namespace

TEST_CASE("a kernel on device memory is judged like any other, packed sequences and decode steps included") {
  const auto kernels = with_fake_device();
  REQUIRE(kernels.size() == 3);
  CHECK(kernels[0].contract.on_device);
  for (const char* law : {"agrees-with-the-oracle", "packed-equals-separate", "strided-inputs-equal-dense-ones", "repeated-runs-agree",
                          "a-decode-chain-is-the-recurrence", "decode-goes-on-from-a-prefill", "every-output-element-is-written"}) {
    int passed = 0;
    for (std::uint64_t seed = 1; seed <= 4; ++seed)
      for (const char* regime : {"usual-decay", "packed-single-tokens"}) {
        const CaseResult result = verdict_on(kernels[0], law, regime, seed);
        INFO(law << " " << regime << ": " << result.finding.detail);
        CHECK_FALSE(is_failure(result.finding.verdict));
        passed += result.finding.verdict == Verdict::passed;
      }
    INFO(law);
    CHECK(passed > 0);
  }
}

TEST_CASE("a write past the end of device memory that was handed over is seen") {
  const CaseResult result = verdict_on(with_fake_device()[1], "nothing-else-is-touched", "usual-decay");
  CHECK(result.finding.verdict == Verdict::failed_property);
  CHECK(result.finding.detail.find("wrote past the end of o") != std::string::npos);
}

TEST_CASE("a device that reports an error is a crash in its words, and the next call gets a fresh process") {
  const auto kernels = with_fake_device();
  const CaseResult broken = verdict_on(kernels[2], "agrees-with-the-oracle", "usual-decay");
  CHECK(broken.finding.verdict == Verdict::crashed);
  CHECK(broken.finding.detail.find("illegal memory access") != std::string::npos);
  CHECK(verdict_on(kernels[0], "agrees-with-the-oracle", "usual-decay").finding.verdict == Verdict::passed);
}

TEST_CASE("without a device, or without a CUDA runtime, every case is not supported, with the reason") {
  setenv("KDACHECK_CUDART", KDACHECK_FAKE_CUDART, 1);
  setenv("KDACHECK_FAKE_CUDA_DEVICES", "0", 1);
  CaseResult result = verdict_on(plugin_kernels(KDACHECK_DEVICE_PLUGIN).at(0), "agrees-with-the-oracle", "usual-decay");
  CHECK(result.finding.verdict == Verdict::not_supported);
  CHECK(result.finding.detail == "memory=device needs a CUDA device, and there is none (no CUDA-capable device is detected)");
  setenv("KDACHECK_CUDART", "/nonexistent/libcudart.so", 1);
  result = verdict_on(plugin_kernels(KDACHECK_DEVICE_PLUGIN).at(0), "agrees-with-the-oracle", "usual-decay");
  CHECK(result.finding.verdict == Verdict::not_supported);
  CHECK(result.finding.detail == "memory=device needs a CUDA runtime, and no libcudart can be loaded");
}
