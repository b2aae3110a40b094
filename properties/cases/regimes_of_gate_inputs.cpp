// Gates computed inside the kernel from their raw input.

#include "regime_drawing.hpp"

namespace kdacheck {
namespace {

/// Gate, beta and normalisation all inside, as model code calls these kernels.
Recipe all_inside(std::string_view regime, std::uint64_t seed, Tier tier, GateForm form) {
  Recipe recipe = usual(regime, seed, tier);
  recipe.options.gate = recipe.gate_model = form;
  recipe.options.beta = seed % 3 == 2 ? BetaForm::twice_sigmoid : BetaForm::sigmoid;
  recipe.betas = BetaPattern::sigmoid_gauss;
  recipe.beta_center = seed % 3 == 2 ? 1.0f : 0.5f;
  recipe.beta_spread = 1;
  recipe.options.l2norm = true;
  recipe.key_norm = recipe.query_norm = static_cast<float>(std::sqrt(static_cast<double>(recipe.shape.K)));
  return recipe;
}

} // namespace

void append_gate_input_regimes(std::vector<Regime>& list) {
  list.push_back({"published-init", "gates as the model is initialised: A_log = log U(1,16), dt log-uniform in [1e-3, 0.1]",
                  [](std::uint64_t seed, Tier tier) {
                    Recipe recipe = all_inside("published-init", seed, tier, GateForm::softplus);
                    recipe.gates = GatePattern::published_init;
                    recipe.decay = recipe.decay_spread = 1;
                    return recipe;
                  }});
  list.push_back(
      {"trained-gates", "gates as trained models have them: exp(A_log) up to 200, |g| up to thousands", [](std::uint64_t seed, Tier tier) {
         Recipe recipe = all_inside("trained-gates", seed, tier, GateForm::softplus);
         recipe.gates = GatePattern::trained;
         recipe.decay = 1;
         recipe.decay_spread = 4;
         return recipe;
       }});
  list.push_back(
      {"softplus-gate", "the softplus gate over decays of every size, with and without dt_bias", [](std::uint64_t seed, Tier tier) {
         Recipe recipe = all_inside("softplus-gate", seed, tier, GateForm::softplus);
         Dice dice(recipe.regime, seed);
         recipe.decay = dice.fixed_or(std::array{0.05f, 5.0f, 1e-4f}, 1e-5f, 100.0f);
         recipe.gate_bias = seed % 4 != 1;
         return recipe;
       }});
  list.push_back({"bounded-gate",
                  "the bounded gate with bounds -1 to -5, saturated in half the cases: a whole chunk at its strongest decay",
                  [](std::uint64_t seed, Tier tier) {
                    Recipe recipe = all_inside("bounded-gate", seed, tier, GateForm::bounded);
                    Dice dice(recipe.regime, seed);
                    const float bound = dice.fixed_or(std::array{5.0f, 3.0f, 1.0f, 2.5f}, 1.0f, 5.0f);
                    recipe.options.lower_bound = -bound;
                    recipe.decay_spread = seed % 4 == 0 ? 0.0f : 0.3f;
                    recipe.decay = seed % 2 == 0 ? bound / (1 + recipe.decay_spread) : dice.log_uniform(1e-3f, bound / 1.3f);
                    recipe.gate_bias = seed % 4 != 1;
                    return recipe;
                  }});
  list.push_back(
      {"sigmoid-gate", "alpha = sigmoid(x) with logits from -40 to 40: no cancellation at either end", [](std::uint64_t seed, Tier tier) {
         Recipe recipe = all_inside("sigmoid-gate", seed, tier, GateForm::sigmoid);
         Dice dice(recipe.regime, seed);
         recipe.gates = GatePattern::logits;
         recipe.decay = seed % 2 == 0 ? 40.0f : dice.log_uniform(0.5f, 40.0f);
         recipe.decay_center = seed % 2 == 0 ? 0.0f : dice.uniform(-5.0f, 10.0f);
         return recipe;
       }});
  list.push_back({"gate-logits", "softplus and bounded gates with inputs from -40 to 40", [](std::uint64_t seed, Tier tier) {
                    Recipe recipe = all_inside("gate-logits", seed, tier, seed % 2 == 0 ? GateForm::softplus : GateForm::bounded);
                    recipe.gates = GatePattern::logits;
                    recipe.decay = 40;
                    return recipe;
                  }});
  list.push_back({"dead-gates", "A_log = -inf in every second head: alpha is 1 for ever, and nothing may become NaN",
                  [](std::uint64_t seed, Tier tier) {
                    Recipe recipe = all_inside("dead-gates", seed, tier, seed % 2 == 0 ? GateForm::softplus : GateForm::bounded);
                    recipe.gates = GatePattern::published_init;
                    recipe.decay = recipe.decay_spread = 1;
                    recipe.dead_heads = true;
                    return recipe;
                  }});
  list.push_back({"beta-logits", "beta from logits of -40 to 40 through sigmoid or twice sigmoid", [](std::uint64_t seed, Tier tier) {
                    Recipe recipe = usual("beta-logits", seed, tier);
                    recipe.options.beta = seed % 2 == 0 ? BetaForm::sigmoid : BetaForm::twice_sigmoid;
                    recipe.betas = BetaPattern::sigmoid_gauss;
                    recipe.beta_center = seed % 2 == 0 ? 0.5f : 1.0f;
                    recipe.beta_spread = seed % 4 < 2 ? 12.0f : 3.0f;
                    return recipe;
                  }});
}

} // namespace kdacheck
