// Any ingredient with any other: what a fixed list of regimes never combines.

#include "regime_drawing.hpp"

#include <algorithm>

namespace kdacheck {
namespace {

Recipe anything(std::uint64_t seed, Tier tier) {
  Recipe recipe = usual("anything", seed, tier);
  Dice dice(recipe.regime, seed);
  recipe.keys = dice.any_of(std::array{KeyPattern::gaussian, KeyPattern::gaussian, KeyPattern::uniform, KeyPattern::near_identical,
                                       KeyPattern::alternating, KeyPattern::constant, KeyPattern::sparse_zero});
  recipe.key_noise = dice.log_uniform(1e-3f, 1.0f);
  if (dice.chance(0.15)) recipe.key_norm = dice.log_uniform(1e-6f, 1.0f);

  recipe.gates = static_cast<GatePattern>(dice.between(0, static_cast<int>(GatePattern::logits)));
  recipe.decay = dice.chance(0.1) ? 0.0f : dice.log_uniform(1e-5f, dice.chance(0.2) ? 1000.0f : 5.0f);
  recipe.decay_spread = dice.uniform(0.0f, 1.0f);
  if (recipe.gates == GatePattern::published_init || recipe.gates == GatePattern::trained) recipe.decay = dice.log_uniform(0.1f, 1.0f);
  if (recipe.gates == GatePattern::logits) recipe.decay = dice.uniform(0.5f, 40.0f);
  if (dice.chance(0.4)) {
    recipe.options.gate = dice.any_of(std::array{GateForm::softplus, GateForm::bounded, GateForm::sigmoid});
    recipe.gate_model = recipe.options.gate;
    recipe.options.lower_bound = -dice.uniform(1.0f, 5.0f);
    recipe.gate_bias = dice.chance(0.7);
  }

  recipe.betas = dice.any_of(std::array{BetaPattern::constant, BetaPattern::uniform, BetaPattern::sigmoid_gauss, BetaPattern::near_one});
  recipe.beta_center = recipe.betas == BetaPattern::near_one ? 1.0f : dice.uniform(0.0f, 0.5f);
  recipe.beta_spread = recipe.betas == BetaPattern::sigmoid_gauss ? dice.uniform(0.0f, 4.0f) : dice.uniform(0.0f, recipe.beta_center);
  if (dice.chance(0.25)) {
    recipe.beta_center *= 2;
    recipe.beta_spread *= recipe.betas == BetaPattern::uniform ? 2.0f : 1.0f;
  }
  if (dice.chance(0.3)) recipe.options.beta = recipe.beta_center > 0.5f ? BetaForm::twice_sigmoid : BetaForm::sigmoid;
  if (dice.chance(0.3)) recipe.options.l2norm = true;

  recipe.values = dice.any_of(std::array{ValuePattern::gaussian, ValuePattern::gaussian, ValuePattern::zero, ValuePattern::constant,
                                         ValuePattern::converged, ValuePattern::small_integers});
  recipe.residual = dice.log_uniform(1e-3f, 1.0f);
  recipe.state = dice.any_of(
      std::array{StatePattern::absent, StatePattern::zero, StatePattern::gaussian, StatePattern::asymmetric, StatePattern::warm});
  recipe.state_scale = dice.log_uniform(0.1f, 10.0f);
  recipe.loss = dice.any_of(std::array{LossPattern::everywhere, LossPattern::everywhere, LossPattern::outputs_only,
                                       LossPattern::final_state_only, LossPattern::single_token, LossPattern::single_head});
  if (dice.chance(0.3)) {
    const std::int64_t total = recipe.shape.B * recipe.shape.T;
    std::vector<std::int64_t> lengths;
    for (std::int64_t left = total; left > 0; left -= lengths.back()) lengths.push_back(dice.between(0, std::min<std::int64_t>(left, 80)));
    if (lengths.empty()) lengths.push_back(0);
    pack(recipe, std::move(lengths));
  }
  return recipe;
}

} // namespace

void append_everything_regime(std::vector<Regime>& list) {
  list.push_back(
      {"anything", "any keys with any gates, betas, values, states and lengths: what the other regimes never combine", anything});
}

} // namespace kdacheck
