#include "regime_drawing.hpp"

#include <algorithm>

namespace kdacheck {

void append_key_regimes(std::vector<Regime>& list) {
  list.push_back({"gaussian-keys", "independent keys, mild decay: the plain case, where indexing and carry faults show",
                  [](std::uint64_t seed, Tier tier) { return usual("gaussian-keys", seed, tier); }});
  list.push_back(
      {"uniform-keys", "keys of pairwise cosine 3/4: the off-diagonal of I + L is no longer small", [](std::uint64_t seed, Tier tier) {
         Recipe recipe = usual("uniform-keys", seed, tier);
         Dice dice(recipe.regime, seed);
         recipe.keys = KeyPattern::uniform;
         recipe.decay = dice.log_uniform(1e-4f, 0.1f);
         recipe.betas = BetaPattern::sigmoid_gauss;
         recipe.beta_spread = 1;
         return recipe;
       }});
  list.push_back({"near-identical-keys",
                  "one key direction, slow decay, beta near 1: powers of L cancel only in exact arithmetic, so any inverse by series fails",
                  [](std::uint64_t seed, Tier tier) {
                    Recipe recipe = usual("near-identical-keys", seed, tier);
                    Dice dice(recipe.regime, seed);
                    recipe.keys = KeyPattern::near_identical;
                    recipe.key_noise = dice.log_uniform(1e-3f, 0.2f);
                    recipe.decay = dice.log_uniform(1e-5f, 1e-2f);
                    recipe.betas = BetaPattern::near_one;
                    recipe.beta_center = 1;
                    recipe.beta_spread = dice.log_uniform(1e-3f, 0.3f);
                    return recipe;
                  }});
  list.push_back(
      {"alternating-keys", "the same with the key's sign alternating: entries of I + L of both signs", [](std::uint64_t seed, Tier tier) {
         Recipe recipe = usual("alternating-keys", seed, tier);
         Dice dice(recipe.regime, seed);
         recipe.keys = KeyPattern::alternating;
         recipe.key_noise = dice.log_uniform(1e-3f, 0.2f);
         recipe.decay = dice.log_uniform(1e-5f, 1e-2f);
         recipe.betas = BetaPattern::near_one;
         recipe.beta_center = 1;
         recipe.beta_spread = dice.log_uniform(1e-3f, 0.3f);
         return recipe;
       }});
  list.push_back({"constant-tokens", "every token has the same bits: rounding errors repeat instead of averaging out",
                  [](std::uint64_t seed, Tier tier) {
                    Recipe recipe = usual("constant-tokens", seed, tier);
                    Dice dice(recipe.regime, seed);
                    if (seed % 2 == 1) lengthen(recipe, dice, tier);
                    recipe.keys = KeyPattern::constant;
                    recipe.values = ValuePattern::constant;
                    recipe.gates = GatePattern::per_channel;
                    recipe.decay = dice.log_uniform(1e-4f, 0.1f);
                    recipe.decay_spread = 0.5f;
                    recipe.betas = BetaPattern::constant;
                    recipe.beta_center = dice.uniform(0.05f, 1.0f);
                    return recipe;
                  }});
  list.push_back({"zero-keys", "some rows of q and k are exactly zero (padding): a token without a key only decays",
                  [](std::uint64_t seed, Tier tier) {
                    Recipe recipe = usual("zero-keys", seed, tier);
                    Dice dice(recipe.regime, seed);
                    recipe.keys = KeyPattern::sparse_zero;
                    recipe.key_noise = dice.chance(0.2) ? 1.0f : dice.uniform(0.1f, 0.6f);
                    recipe.options.l2norm = seed % 2 == 1;
                    return recipe;
                  }});
  list.push_back({"tiny-keys",
                  "keys of length 1e-6 to 1e-1, all of them in every case: an eps in the wrong place, or an underflow, becomes visible",
                  [](std::uint64_t seed, Tier tier) {
                    constexpr std::int64_t enough = 13; // tokens; fewer would leave out one end or the other
                    Recipe recipe = usual("tiny-keys", seed, tier);
                    Dice dice(recipe.regime, seed);
                    recipe.shape.T = std::max(recipe.shape.T, enough);
                    recipe.keys = KeyPattern::many_lengths;
                    recipe.key_noise = 1e-5f;
                    recipe.key_norm = 0.1f;
                    recipe.query_norm = dice.chance(0.5) ? recipe.key_norm : 1.0f;
                    recipe.state_scale = 1e-7f; // fainter than what the shortest key writes
                    return recipe;
                  }});
  list.push_back({"l2norm-inside", "q and k of any length, normalised by the kernel: 1e-6 under the root, summed over all K",
                  [](std::uint64_t seed, Tier tier) {
                    Recipe recipe = usual("l2norm-inside", seed, tier);
                    Dice dice(recipe.regime, seed);
                    recipe.options.l2norm = true;
                    recipe.key_norm = dice.fixed_or(std::array{1e-3f, 1e-6f, 8.0f}, 1e-6f, 1e3f);
                    recipe.query_norm = dice.chance(0.5) ? recipe.key_norm : dice.log_uniform(1e-4f, 1e2f);
                    return recipe;
                  }});
}

} // namespace kdacheck
