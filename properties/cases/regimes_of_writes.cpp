// How strongly tokens write: beta, and keys whose length is not quite 1.

#include "regime_drawing.hpp"

namespace kdacheck {

void append_write_regimes(std::vector<Regime>& list) {
  list.push_back({"beta-zero", "beta is 0: pure decay and reading, whatever k and v hold", [](std::uint64_t seed, Tier tier) {
                    Recipe recipe = usual("beta-zero", seed, tier);
                    recipe.betas = BetaPattern::constant;
                    recipe.beta_center = recipe.beta_spread = 0;
                    recipe.state = seed % 2 == 0 ? StatePattern::gaussian : StatePattern::asymmetric;
                    return recipe;
                  }});
  list.push_back({"beta-tiny", "beta of 1e-10 to 1e-3 on a given state: nothing is written, so every fault of gate and state stands out",
                  [](std::uint64_t seed, Tier tier) {
                    Recipe recipe = usual("beta-tiny", seed, tier);
                    Dice dice(recipe.regime, seed);
                    recipe.betas = seed % 2 == 0 ? BetaPattern::constant : BetaPattern::uniform;
                    recipe.beta_center = round_of(seed) == 1 ? 1e-4f : dice.fixed_or(std::array{1e-10f}, 1e-10f, 1e-3f);
                    recipe.beta_spread = recipe.beta_center;
                    recipe.decay = dice.log_uniform(1e-4f, 0.1f);
                    recipe.state = StatePattern::gaussian;
                    return recipe;
                  }});
  list.push_back({"beta-one", "beta is exactly 1: every write replaces what its key held", [](std::uint64_t seed, Tier tier) {
                    Recipe recipe = usual("beta-one", seed, tier);
                    recipe.betas = BetaPattern::constant;
                    recipe.beta_center = 1;
                    recipe.beta_spread = 0;
                    return recipe;
                  }});
  list.push_back({"beta-to-two", "beta up to 2: negative eigenvalues", [](std::uint64_t seed, Tier tier) {
                    Recipe recipe = usual("beta-to-two", seed, tier);
                    Dice dice(recipe.regime, seed);
                    recipe.beta_center = seed % 2 == 0 ? 1.0f : 1.9f;
                    recipe.beta_spread = seed % 2 == 0 ? 1.0f : 0.1f;
                    recipe.decay = dice.log_uniform(1e-4f, 0.1f);
                    if (seed % 3 == 2) recipe.keys = KeyPattern::uniform;
                    return recipe;
                  }});
  list.push_back({"reflections", "beta is exactly 2 and no decay: the transition is orthogonal, nothing fades, errors neither",
                  [](std::uint64_t seed, Tier tier) {
                    Recipe recipe = usual("reflections", seed, tier);
                    Dice dice(recipe.regime, seed);
                    recipe.betas = BetaPattern::constant;
                    recipe.beta_center = 2;
                    recipe.beta_spread = 0;
                    recipe.decay = seed % 2 == 0 ? 0.0f : 1e-3f;
                    if (seed % 2 == 1) {
                      recipe.keys = KeyPattern::near_identical;
                      recipe.key_noise = dice.log_uniform(1e-2f, 0.5f);
                    }
                    return recipe;
                  }});
  list.push_back({"keys-longer-than-one",
                  "rounded keys with |k|^2 up to 1.008 and beta up to 2: the transition expands a little at every token",
                  [](std::uint64_t seed, Tier tier) {
                    Recipe recipe = usual("keys-longer-than-one", seed, tier);
                    Dice dice(recipe.regime, seed);
                    recipe.key_norm = dice.uniform(1.0005f, 1.004f);
                    recipe.beta_center = seed % 2 == 0 ? 1.9f : 0.95f;
                    recipe.beta_spread = seed % 2 == 0 ? 0.1f : 0.05f;
                    recipe.decay = seed % 4 < 2 ? 0.0f : 1e-4f;
                    if (seed % 3 == 1) {
                      recipe.keys = KeyPattern::near_identical;
                      recipe.key_noise = 0.05f;
                    }
                    return recipe;
                  }});
}

} // namespace kdacheck
