// Inputs on which every operation of a correct kernel is exact, in any order and any format of 8 bits or more: compare
// the bits.

#include "regime_drawing.hpp"

namespace kdacheck {
namespace {

Recipe exact(std::string_view regime, std::uint64_t seed, Tier tier, KeyPattern keys, BetaPattern betas) {
  Recipe recipe = usual(regime, seed, tier);
  recipe.keys = keys;
  recipe.key_noise = 1;
  recipe.gates = GatePattern::constant;
  recipe.decay = recipe.decay_spread = 0;
  if (seed % 4 == 3) recipe.options.gate = GateForm::absent;
  recipe.options.scale = seed % 2 == 0 ? 1.0f : 0.25f;
  recipe.betas = betas;
  recipe.beta_center = 0.5f;
  recipe.beta_spread = 0;
  recipe.values = ValuePattern::small_integers;
  recipe.state = seed % 3 == 1 ? StatePattern::absent : StatePattern::integers;
  return recipe;
}

} // namespace

void append_exact_regimes(std::vector<Regime>& list) {
  list.push_back(
      {"exact-unit-keys", "keys +-e_i, beta 0, 1/2 or 1, integers: every entry is selected or halved, so the bits must agree",
       [](std::uint64_t seed, Tier tier) { return exact("exact-unit-keys", seed, tier, KeyPattern::signed_unit, BetaPattern::halves); }});
  list.push_back({"exact-overwrites", "keys +-e_i, beta 1 or 2: overwrites and reflections, exact", [](std::uint64_t seed, Tier tier) {
                    return exact("exact-overwrites", seed, tier, KeyPattern::signed_unit, BetaPattern::one_two);
                  }});
  list.push_back(
      {"exact-walsh-keys", "orthonormal dyadic keys, beta 0 or 1: dense through every matrix product, and still exact",
       [](std::uint64_t seed, Tier tier) { return exact("exact-walsh-keys", seed, tier, KeyPattern::walsh, BetaPattern::zero_one); }});
  list.push_back({"exact-repeated-key",
                  "one Walsh key in every token, beta 1 or 2: the inverse has entries +-2, its powers cancel only exactly",
                  [](std::uint64_t seed, Tier tier) {
                    Recipe recipe = exact("exact-repeated-key", seed, tier, KeyPattern::walsh, BetaPattern::one_two);
                    recipe.key_noise = 0;
                    return recipe;
                  }});
}

} // namespace kdacheck
