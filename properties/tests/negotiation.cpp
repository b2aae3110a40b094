// Domains are negotiated, not guessed: a kernel that computes what it declared not to take is told so, and so is one that
// turns down what it declared to take; by every route.

#include "../../kernels/plugin/subprocess_kernels.hpp"
#include "../campaign.hpp"
#include "checked.hpp"

#include <catch2/catch.hpp>

#include <cstdlib>
#include <string>

using namespace kdacheck;
using namespace kdacheck::tests;

namespace {

Finding verdict_on(const Kernel& kernel, const char* law) {
  static Judge judge;
  return run_case(kernel, property_named(law), fitted(regime_named("usual-decay")->draw(3, Tier::quick), kernel.contract), judge).finding;
}

/// Kernels "NAME.strict", which refuses what it does not offer, "NAME.lax", which does not, and "NAME.shy", which refuses all.
void negotiates(const std::vector<Kernel>& kernels) {
  REQUIRE(kernels.size() == 3);
  for (const Kernel& kernel : kernels) {
    INFO(kernel.name);
    const Finding accepts = verdict_on(kernel, "malformed-calls-are-refused"), refuses = verdict_on(kernel, "agrees-with-the-oracle");
    if (kernel.name.ends_with("strict")) {
      INFO(accepts.detail << refuses.detail);
      CHECK(accepts.verdict == Verdict::passed);
      CHECK(refuses.verdict == Verdict::passed);
    } else if (kernel.name.ends_with("lax")) {
      CHECK(accepts.verdict == Verdict::failed_property);
      CHECK(accepts.detail.find("was not refused") != std::string::npos);
      CHECK(refuses.verdict == Verdict::passed);
    } else {
      CHECK(refuses.verdict == Verdict::failed_property);
      INFO(refuses.detail);
      CHECK(refuses.detail.starts_with("refused a problem inside its domain: "));
      CHECK(refuses.detail.ends_with("not on a Monday"));
    }
  }
}

} // namespace

TEST_CASE("the domain of a shared library's kernel is held against it in both directions") {
  negotiates(plugin_kernels(KDACHECK_NEGOTIATING_PLUGIN));
}

TEST_CASE("the domain of a worker program's kernel is held against it in both directions") {
  negotiates(subprocess_kernels("env PYTHONPATH='" KDACHECK_PYTHON_PACKAGE ":" KDACHECK_PYTHON_TESTS
                                "' python3 -m kdacheck.worker negotiating_kernels:strict negotiating_kernels:lax negotiating_kernels:shy"));
}

TEST_CASE("the domain of a Python function is held against it in both directions") {
  setenv("PYTHONPATH", KDACHECK_PYTHON_TESTS, 1);
  std::vector<Kernel> kernels;
  for (const char* way : {"strict", "lax", "shy"}) kernels.push_back(python_kernels(std::string("negotiating_kernels:") + way).at(0));
  negotiates(kernels);
}
