// One verb finds a fault in a module's values, in a parameter's gradient and on an exceptional value, and accepts the module.

#include "../whole_module.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <stdexcept>
#include <string>

using namespace kdacheck;

namespace {

const ModuleSuite& layer() {
  const auto suites = module_suites();
  return *std::ranges::find(suites, std::string("KimiDeltaAttention"), [](const ModuleSuite& suite) { return suite.name; });
}

/// The verb on the layer with something done to it.
Finding verb(const std::function<void(modules::Module&)>& change) {
  ModuleCase drawn = layer().draw(layer().regimes.front().name, 1);
  change(drawn.module);
  return expect_right(drawn, layer().laws, 1);
}

} // namespace

TEST_CASE("a right module is right in values, gradients and on exceptional values") {
  const Finding finding = verb([](modules::Module&) {});
  INFO(finding.detail);
  CHECK(finding.verdict == Verdict::passed);
  CHECK(finding.bound_util > 0);
}

TEST_CASE("a planted fault is found by the same verb") {
  const ModuleSuite& suite = layer();
  REQUIRE(!suite.faults.empty());
  bool found = false;
  for (const ModuleRegime& regime : suite.regimes)
    found = found || is_failure(expect_right(suite, regime.name, 1, suite.faults.front().name).verdict);
  CHECK(found);
}

TEST_CASE("one wrong gradient of one parameter is found, and named") {
  const Finding finding = verb([](modules::Module& module) {
    module.backward = [right = module.backward](const modules::ModuleCall& call, const modules::ModuleCotangents& loss) {
      modules::ModuleGradients gradients = right(call, loss);
      for (float& x : gradients.parameters.back().values) x *= 1.001f;
      return gradients;
    };
  });
  INFO(finding.detail);
  CHECK(is_failure(finding.verdict));
  CHECK(finding.detail.starts_with("gradients-agree-with-the-oracle"));
}

TEST_CASE("a NaN that travels back in time, and one that is hidden, are found") {
  for (const bool hide : {false, true}) {
    // The layer itself refuses what is not finite; this one takes 0 for it.
    const Finding finding = verb([hide](modules::Module& module) {
      module.forward = [right = module.forward, hide](modules::ModuleCall call) {
        bool any = false;
        for (float& x : call.inputs.front().values)
          if (std::isnan(x)) any = true, x = 0;
        modules::ModuleResult result = right(call);
        if (any && !hide) std::ranges::fill(result.outputs.front().values, std::nanf(""));
        return result;
      };
    });
    INFO(finding.detail);
    CHECK(is_failure(finding.verdict));
    CHECK(finding.detail.starts_with("a-nan-stays-in-its-place"));
  }
}

TEST_CASE("a module that throws is a finding") {
  const Finding finding = verb([](modules::Module& module) {
    module.forward = [](const modules::ModuleCall&) -> modules::ModuleResult { throw std::runtime_error("no weights"); };
  });
  CHECK(finding.verdict == Verdict::crashed);
  CHECK(finding.detail.find("no weights") != std::string::npos);
}
