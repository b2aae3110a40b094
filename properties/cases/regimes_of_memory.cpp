// What the memory holds before a token arrives, and what the token brings.

#include "regime_drawing.hpp"

#include <algorithm>

namespace kdacheck {

void append_memory_regimes(std::vector<Regime>& list) {
  list.push_back({"converged-memory", "v is what the memory already holds, plus little: a residual rounded before the difference is lost",
                  [](std::uint64_t seed, Tier tier) {
                    Recipe recipe = usual("converged-memory", seed, tier);
                    Dice dice(recipe.regime, seed);
                    recipe.values = ValuePattern::converged;
                    recipe.state = seed % 2 == 0 ? StatePattern::gaussian : StatePattern::warm;
                    recipe.state_scale = 4;
                    recipe.residual = dice.log_uniform(1e-3f, 0.1f);
                    recipe.decay = dice.log_uniform(1e-5f, 1e-2f);
                    recipe.betas = BetaPattern::near_one;
                    recipe.beta_center = 1;
                    if (dice.chance(0.5)) recipe.keys = KeyPattern::uniform;
                    return recipe;
                  }});
  list.push_back({"pure-transport", "v = 0 and a given state: the outputs are the products of the transitions and nothing else",
                  [](std::uint64_t seed, Tier tier) {
                    Recipe recipe = usual("pure-transport", seed, tier);
                    Dice dice(recipe.regime, seed);
                    recipe.values = ValuePattern::zero;
                    recipe.state = seed % 2 == 0 ? StatePattern::asymmetric : StatePattern::gaussian;
                    recipe.decay = dice.log_uniform(1e-4f, 0.5f);
                    return recipe;
                  }});
  list.push_back({"faint-memory", "v = 0, and a state of which tokens with |g| of 20 to 25 leave 1e-9: faint, but all there is",
                  [](std::uint64_t seed, Tier tier) {
                    Recipe recipe = usual("faint-memory", seed, tier);
                    Dice dice(recipe.regime, seed);
                    recipe.values = ValuePattern::zero;
                    recipe.state = StatePattern::gaussian;
                    recipe.decay = dice.uniform(22.0f, 24.0f);
                    recipe.decay_spread = 0.05f;
                    if (seed % 2 == 0) { // every token
                      set_length(recipe, dice.between(1, 2), tier);
                    } else { // now and then
                      recipe.gates = GatePattern::sparse_reset;
                      recipe.decay_spread = dice.uniform(0.5f, 2.0f) / static_cast<float>(std::max<std::int64_t>(recipe.shape.T, 2));
                    }
                    return recipe;
                  }});
  list.push_back({"warm-chunk", "at most one chunk, from a state that the same traffic left behind: errors cannot grow, bounds are tight",
                  [](std::uint64_t seed, Tier tier) {
                    Recipe recipe = usual("warm-chunk", seed, tier);
                    Dice dice(recipe.regime, seed);
                    set_length(recipe, seed % 2 == 0 ? 16 : dice.between(1, 64), tier);
                    recipe.state = StatePattern::warm;
                    recipe.decay = dice.log_uniform(1e-3f, 5.0f);
                    if (seed % 3 == 1) {
                      recipe.keys = KeyPattern::near_identical;
                      recipe.key_noise = 0.05f;
                      recipe.decay = 1e-3f;
                    }
                    return recipe;
                  }});
  list.push_back({"large-values",
                  "values of 1e2 to 1e4: outputs near the end of fp16's range; states of 1e7; values of 1e6, which fp16 has not",
                  [](std::uint64_t seed, Tier tier) {
                    Recipe recipe = usual("large-values", seed, tier);
                    Dice dice(recipe.regime, seed);
                    recipe.value_scale = dice.fixed_or(std::array{1e4f}, 1e2f, 1e4f);
                    recipe.state_scale = recipe.value_scale;
                    if (round_of(seed) == 1) recipe.state = StatePattern::gaussian, recipe.state_scale = 1e7f;
                    if (round_of(seed) == 2) recipe.value_scale = 1e6f; // kernels with fp16 inputs leave it out
                    return recipe;
                  },
                  3});
  list.push_back({"tiny-values", "values of 1e-30 to 1e-3: what flushes to zero, and where", [](std::uint64_t seed, Tier tier) {
                    Recipe recipe = usual("tiny-values", seed, tier);
                    Dice dice(recipe.regime, seed);
                    recipe.value_scale = dice.fixed_or(std::array{1e-4f, 1e-30f}, 1e-30f, 1e-3f);
                    recipe.state_scale = recipe.value_scale;
                    return recipe;
                  }});
}

} // namespace kdacheck
