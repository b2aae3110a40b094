// The general rule D - a b^T.

#include "regime_drawing.hpp"

namespace kdacheck {
namespace {

Recipe general(std::string_view regime, std::uint64_t seed, Tier tier, DplrPattern pattern) {
  Recipe recipe = usual(regime, seed, tier);
  Dice dice(regime, seed);
  recipe.options.rule = Rule::dplr;
  recipe.dplr = pattern;
  recipe.decay = dice.log_uniform(1e-2f, 1.0f);
  return recipe;
}

} // namespace

void append_dplr_regimes(std::vector<Regime>& list) {
  list.push_back({"dplr-of-kda", "a = beta k, b = k alpha, key beta k: the general rule must do what KDA does",
                  [](std::uint64_t seed, Tier tier) { return general("dplr-of-kda", seed, tier, DplrPattern::of_kda); }});
  list.push_back({"dplr-rwkv7",
                  "a unit vector against itself times channel-wise rates, as in RWKV-7: each step is stable, their products need not be",
                  [](std::uint64_t seed, Tier tier) { return general("dplr-rwkv7", seed, tier, DplrPattern::rwkv7); }});
  list.push_back({"dplr-benign", "independent a and b with alpha + |a| |b| below 1: complex eigenvalues, and a contraction all the same",
                  [](std::uint64_t seed, Tier tier) {
                    Recipe recipe = general("dplr-benign", seed, tier, DplrPattern::benign);
                    recipe.decay_spread = 0.5f;
                    // alpha is at most e^(-decay/2)
                    recipe.dplr_strength = static_cast<float>(0.9 * -portable::expm1(-0.5 * recipe.decay));
                    return recipe;
                  }});
}

} // namespace kdacheck
