// Inputs on which every operation of a correct kernel is exact, in any order and any format of 8 bits or more: compare
// the bits. (exact-residual leaves a state that takes fp32, and is exact as long as all its tokens are of one chunk.)

#include "regime_drawing.hpp"

#include <algorithm>

namespace kdacheck {
namespace {

Recipe exact(std::string_view regime, std::uint64_t seed, Tier tier, KeyPattern keys, BetaPattern betas) {
  Recipe recipe = usual(regime, seed, tier);
  recipe.keys = keys;
  recipe.key_noise = 1;
  recipe.gates = GatePattern::constant;
  recipe.decay = recipe.decay_spread = 0;
  if (seed % 5 == 3) recipe.options.gate = GateForm::absent;
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
  list.push_back({"exact-residual",
                  "v = 4096 on a memory that reads 4096 and a little: exact, unless the difference is taken of rounded numbers",
                  [](std::uint64_t seed, Tier tier) {
                    Recipe recipe = exact("exact-residual", seed, tier, KeyPattern::walsh, BetaPattern::constant);
                    Dice dice(recipe.regime, seed);
                    set_length(recipe, seed % 2 == 0 ? 1 : dice.between(1, 16), tier);
                    recipe.shape.K = std::max<std::int64_t>(4, recipe.shape.K);
                    recipe.key_noise = 0;
                    recipe.beta_center = 1;
                    recipe.options.scale = 1;
                    recipe.values = ValuePattern::held;
                    recipe.state = StatePattern::held;
                    return recipe;
                  }});
}

} // namespace kdacheck
