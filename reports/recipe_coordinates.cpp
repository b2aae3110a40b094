#include "recipe_coordinates.hpp"

#include "../properties/cases/ingredients.hpp"

#include <cmath>
#include <numbers>

namespace kdacheck {
namespace {

/// |ln alpha| of a gate input in the form that the recipe's raw pattern is drawn for.
double raw_decay(const Recipe& recipe, float input, double gain, double bias) {
  Options options = recipe.options;
  options.gate = recipe.gate_model;
  return std::abs(log_decay(options, input, gain, bias));
}

/// Chance that two tokens of an exact pattern with n directions have the same one.
double equal_directions(double noise, double n) {
  const double both_at_base = (1 - noise) * (1 - noise);
  return both_at_base + (1 - both_at_base) / n;
}

} // namespace

double typical_decay(const Recipe& recipe) {
  if (recipe.options.gate == GateForm::absent) return 0;
  const double decay = recipe.decay, spread = recipe.decay_spread;
  switch (recipe.gates) {
  case GatePattern::constant:
  case GatePattern::jitter:
  case GatePattern::per_head:
  case GatePattern::per_channel: return decay;
  case GatePattern::mixed: return decay * std::pow(10.0, -2 * spread) * 1.25;
  case GatePattern::sparse_reset: return decay * spread;
  case GatePattern::softplus_gauss: return decay * std::numbers::ln2;
  case GatePattern::published_init: return raw_decay(recipe, 0, 8.5 * decay, std::log(std::expm1(0.01)));
  case GatePattern::trained: return raw_decay(recipe, 0, decay * std::sqrt(200.0), 0);
  case GatePattern::logits: return raw_decay(recipe, recipe.decay_center, 1, 0);
  }
  return decay;
}

double key_correlation(const Recipe& recipe) {
  const double noise = recipe.key_noise, signal = 1 - noise;
  switch (recipe.keys) {
  case KeyPattern::gaussian:
  case KeyPattern::many_lengths:
  case KeyPattern::sparse_zero: return 0;
  case KeyPattern::uniform: return 0.75;
  case KeyPattern::constant: return 1;
  case KeyPattern::near_identical:
  case KeyPattern::alternating: return signal * signal / (signal * signal + noise * noise);
  case KeyPattern::signed_unit: return equal_directions(noise, 16);
  case KeyPattern::walsh: return equal_directions(noise, 8);
  }
  return 0;
}

} // namespace kdacheck
