// Decay handed over as ln alpha; regimes_of_gate_inputs.cpp has the raw forms.

#include "regime_drawing.hpp"

namespace kdacheck {
void append_gate_regimes(std::vector<Regime>& list) {
  list.push_back({"no-decay", "alpha is exactly 1: the delta rule alone, errors are never forgotten", [](std::uint64_t seed, Tier tier) {
                    Recipe recipe = usual("no-decay", seed, tier);
                    recipe.gates = GatePattern::constant;
                    recipe.decay = recipe.decay_spread = 0;
                    if (seed % 2 == 1) recipe.options.gate = GateForm::absent;
                    return recipe;
                  }});
  list.push_back({"slow-decay", "|g| of 1e-5 to 1e-2 over many tokens: a decay rounded to few bits drifts, a dropped carry stays",
                  [](std::uint64_t seed, Tier tier) {
                    Recipe recipe = usual("slow-decay", seed, tier);
                    Dice dice(recipe.regime, seed);
                    if (seed % 2 == 1) lengthen(recipe, dice, tier);
                    recipe.decay = dice.fixed_or(std::array{1e-5f, 1e-3f, 1e-2f}, 1e-5f, 1e-2f);
                    return recipe;
                  }});
  list.push_back({"usual-decay", "|g| of 0.05 to 0.8, as most models have", [](std::uint64_t seed, Tier tier) {
                    Recipe recipe = usual("usual-decay", seed, tier);
                    Dice dice(recipe.regime, seed);
                    recipe.decay = dice.fixed_or(std::array{0.8f, 0.05f, 0.2f}, 0.05f, 0.8f);
                    return recipe;
                  }});
  list.push_back({"strong-decay", "|g| of 2 to 11: a chunk spans e^-100, factors of e^(G_i - G_j) overflow if split",
                  [](std::uint64_t seed, Tier tier) {
                    Recipe recipe = usual("strong-decay", seed, tier);
                    Dice dice(recipe.regime, seed);
                    recipe.decay = dice.fixed_or(std::array{5.0f, 11.0f, 5.9f, 2.0f}, 2.0f, 11.0f);
                    recipe.decay_spread = seed % 2 == 0 ? 0.0f : dice.uniform(0.0f, 0.5f);
                    return recipe;
                  }});
  list.push_back(
      {"extreme-decay", "|g| of 20 to 1000: every token starts anew; an infinity times zero is NaN", [](std::uint64_t seed, Tier tier) {
         Recipe recipe = usual("extreme-decay", seed, tier);
         Dice dice(recipe.regime, seed);
         recipe.decay = dice.fixed_or(std::array{1000.0f, 100.0f, 20.0f}, 20.0f, 1000.0f);
         recipe.decay_spread = seed % 2 == 0 ? 0.0f : dice.uniform(0.0f, 1.0f);
         return recipe;
       }});
  list.push_back({"sparse-resets", "g is 0 but for a token now and then with -1000: sums over a chunk lose the small decays after it",
                  [](std::uint64_t seed, Tier tier) {
                    Recipe recipe = usual("sparse-resets", seed, tier);
                    Dice dice(recipe.regime, seed);
                    recipe.gates = GatePattern::sparse_reset;
                    recipe.decay = dice.fixed_or(std::array{1000.0f}, 10.0f, 3000.0f);
                    recipe.decay_spread = dice.log_uniform(0.02f, 0.3f);
                    return recipe;
                  }});
  list.push_back({"mixed-decay", "slow and strong channels side by side: no common factor fits all", [](std::uint64_t seed, Tier tier) {
                    Recipe recipe = usual("mixed-decay", seed, tier);
                    Dice dice(recipe.regime, seed);
                    recipe.gates = GatePattern::mixed;
                    recipe.decay = dice.fixed_or(std::array{5.0f}, 0.5f, 20.0f);
                    return recipe;
                  }});
  list.push_back({"decay-per-head", "heads of decay 0 beside heads of decay -10: a head that reads its neighbour's gate shows at once",
                  [](std::uint64_t seed, Tier tier) {
                    Recipe recipe = usual("decay-per-head", seed, tier);
                    Dice dice(recipe.regime, seed);
                    recipe.gates = GatePattern::per_head;
                    recipe.decay = dice.fixed_or(std::array{10.0f}, 0.5f, 20.0f);
                    if (recipe.shape.HV == 1) {
                      recipe.shape.HV = 2;
                      recipe.shape.H = seed % 2 == 0 ? 2 : 1;
                      recipe.shape.T = std::max<std::int64_t>(1, recipe.shape.T / 2);
                    }
                    return recipe;
                  }});
  list.push_back({"decay-per-channel", "channels of decay 0 between channels of decay -10: K and V confused, or a gate read per head",
                  [](std::uint64_t seed, Tier tier) {
                    Recipe recipe = usual("decay-per-channel", seed, tier);
                    Dice dice(recipe.regime, seed);
                    recipe.gates = GatePattern::per_channel;
                    recipe.decay = dice.fixed_or(std::array{10.0f}, 0.5f, 20.0f);
                    return recipe;
                  }});
}

} // namespace kdacheck
