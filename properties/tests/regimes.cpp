#include "../recipe.hpp"

#include <catch2/catch.hpp>

using namespace kdacheck;

TEST_CASE("every regime draws well-formed problems for every seed in every tier") {
  for (const Regime& regime : regimes()) {
    INFO(regime.name);
    for (std::uint64_t seed = 0; seed <= 200; ++seed)
      for (Tier tier : {Tier::quick, Tier::full, Tier::nightly}) {
        const Recipe recipe = regime.draw(seed, tier);
        INFO(to_token(recipe));
        CHECK(recipe.regime == regime.name);
        CHECK(malformed(recipe).value_or("") == "");
        if (tier != Tier::quick) continue;
        const Problem problem = make_problem(recipe, {Format::bf16, Format::fp32, Format::fp32});
        CHECK(malformed(problem).value_or("") == "");
      }
  }
}
