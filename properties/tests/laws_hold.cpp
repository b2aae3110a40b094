// Correct kernels under several contracts keep every law on every regime, and no law is silent everywhere.

#include "../../kernels/faults/faults.hpp"
#include "checked.hpp"

#include <catch2/catch.hpp>

#include <map>

using namespace kdacheck;
using namespace kdacheck::tests;

namespace {

struct Tally {
  int passed = 0, not_supported = 0;
};

std::map<std::string, Tally> tallies;

void keeps_every_law(const Kernel& kernel, std::uint64_t seed) {
  Judge judge;
  for (const Property& property : properties()) {
    if (property.direction == Direction::backward && !kernel.backward) continue;
    for (const Regime& regime : regimes()) {
      ++seed;
      const Recipe recipe = fitted(regime.draw(seed, Tier::quick), kernel.contract);
      const bool concerns = property.regimes.empty() || std::ranges::find(property.regimes, regime.name) != property.regimes.end();
      // every law on a share of its regimes that walks through all of them from kernel to kernel
      if (!concerns || seed % (property.regimes.empty() ? 61 : 5) != 0) continue;
      const Finding finding = checked(kernel, property, recipe, judge);
      INFO(kernel.name << " " << property.name << " " << to_token(recipe) << ": " << finding.detail << " "
                       << (finding.place ? to_text(*finding.place) : ""));
      CHECK_FALSE(is_failure(finding.verdict));
      Tally& tally = tallies[property.name];
      ++(finding.verdict == Verdict::passed ? tally.passed : tally.not_supported);
    }
  }
}

} // namespace

TEST_CASE("correct kernels keep every law") {
  std::uint64_t seed = 1;
  for (const char* contract : {"chunk=16 order=residual_first grouped=yes beta_max=2 k_norm_max=2",
                               "input=bf16 operands=bf16 output=bf16 chunk=64 order=residual_first beta_max=2"})
    keeps_every_law(faultless_kernel("laws", contract), seed += 1009);
  for (const Kernel& kernel : built_in_kernels()) keeps_every_law(kernel, seed += 1009);
  for (const Property& property : properties()) {
    INFO(property.name << " was never decided: " << tallies[property.name].not_supported << " times not supported");
    CHECK(tallies[property.name].passed > 0);
  }
}
