// The nearest recipe inside what a contract declares: forms and sizes give way, decay, beta and |k| do not.

#include "portable_math.hpp"
#include "recipe.hpp"

#include <algorithm>

namespace kdacheck {
namespace {

template <class Value> bool has(const std::vector<Value>& all, Value value) {
  return std::find(all.begin(), all.end(), value) != all.end();
}

std::int64_t nearest(const SizeRange& range, std::int64_t size) {
  const std::int64_t step = std::max<std::int64_t>(range.multiple, 1);
  const std::int64_t lowest = (range.least + step - 1) / step * step, highest = range.most / step * step;
  const std::int64_t below = size / step * step;
  const std::int64_t rounded = size - below <= step / 2 ? below : below + step;
  return std::max(lowest, std::min(rounded, highest));
}

float customary_scale(std::int64_t K) { return static_cast<float>(1.0 / std::sqrt(static_cast<double>(K))); }

bool exact_keys(const Recipe& recipe) { return recipe.keys == KeyPattern::signed_unit || recipe.keys == KeyPattern::walsh; }
bool raw_gates(const Recipe& recipe) {
  return recipe.gates == GatePattern::published_init || recipe.gates == GatePattern::trained || recipe.gates == GatePattern::logits;
}
bool no_decay(const Recipe& recipe) { return recipe.options.gate == GateForm::absent || (!raw_gates(recipe) && recipe.decay == 0); }

/// What no element's |ln alpha| exceeds; gaussians stay below 6.7.
double most_decay(const Recipe& recipe) {
  const double decay = recipe.decay, spread = recipe.decay_spread, tail = portable::softplus(6.7 * spread + 6.7);
  switch (recipe.gates) {
  case GatePattern::jitter: return decay * (1 + spread);
  case GatePattern::mixed: return 1.5 * decay;
  case GatePattern::softplus_gauss: return decay * portable::softplus(6.7 * spread);
  case GatePattern::published_init: return 16 * decay * tail;
  case GatePattern::trained: return 200 * decay * tail;
  case GatePattern::logits: return portable::softplus(std::fabs(recipe.decay_center) + decay);
  default: return decay;
  }
}

void fit_rule(Recipe& recipe, const Contract& contract) {
  Options& options = recipe.options;
  if (!has(contract.rules, options.rule)) {
    if (options.rule == Rule::kda && has(contract.rules, Rule::dplr)) {
      options.rule = Rule::dplr;
      recipe.dplr = DplrPattern::of_kda;
    } else if (options.rule == Rule::dplr && recipe.dplr == DplrPattern::of_kda && has(contract.rules, Rule::kda)) {
      options.rule = Rule::kda;
    }
  }
}

void fit_gate(Recipe& recipe, const Contract& contract) {
  Options& options = recipe.options;
  if (has(contract.gates, options.gate)) return;
  for (GateForm form : {GateForm::log_decay, GateForm::softplus, GateForm::sigmoid, GateForm::bounded, GateForm::absent}) {
    if (!has(contract.gates, form)) continue;
    if (form == GateForm::absent && !no_decay(recipe)) continue;
    if (options.gate == GateForm::absent) { // no gate means decay 0
      recipe.gates = GatePattern::constant;
      recipe.decay = recipe.decay_spread = 0;
    }
    if (form == GateForm::bounded) // the bound makes room for the decay, never the other way round
      options.lower_bound = -static_cast<float>(std::max(-static_cast<double>(options.lower_bound), most_decay(recipe)));
    options.gate = form;
    return;
  }
}

void fit_beta(Recipe& recipe, const Contract& contract) {
  Options& options = recipe.options;
  if (options.rule == Rule::dplr) options.beta = BetaForm::value; // folded into a and the key
  if (options.rule == Rule::dplr || has(contract.betas, options.beta)) return;
  const bool above_one = recipe.betas == BetaPattern::constant   ? recipe.beta_center > 1
                         : recipe.betas == BetaPattern::uniform  ? recipe.beta_center + recipe.beta_spread > 1
                         : recipe.betas == BetaPattern::near_one ? recipe.beta_center > 1
                                                                 : recipe.betas == BetaPattern::one_two || recipe.beta_center > 0.5f;
  for (BetaForm form : {BetaForm::value, BetaForm::twice_sigmoid, BetaForm::sigmoid})
    if (has(contract.betas, form) && !(form == BetaForm::sigmoid && above_one)) {
      options.beta = form;
      return;
    }
}

/// |x| after the kernel's own normalisation of a row of length `norm`, and back.
double normalised(double norm) { return norm / std::sqrt(norm * norm + 1e-6); }
double before_normalising(double norm) { return norm < 0.999 ? norm * 1e-3 / std::sqrt(1 - norm * norm) : norm; }

void fit_l2norm(Recipe& recipe, const Contract& contract) {
  Options& options = recipe.options;
  if (options.rule == Rule::dplr && contract.l2norm_outside && options.l2norm && recipe.dplr == DplrPattern::of_kda) {
    // a and b hold the key as well: it must have its final length when they are made.
    options.l2norm = false;
  } else if (options.l2norm ? contract.l2norm_inside || !contract.l2norm_outside : contract.l2norm_outside || !contract.l2norm_inside) {
    return;
  } else if (!options.l2norm) {
    if (recipe.key_norm > 1) return; // no normalised key is longer
    options.l2norm = true;
    // The 1e-6 under the root vanishes from a power of two this large: exact keys stay exact.
    recipe.key_norm = exact_keys(recipe) ? 1024.0f : static_cast<float>(before_normalising(recipe.key_norm));
    recipe.query_norm = exact_keys(recipe) ? 1024.0f : static_cast<float>(before_normalising(recipe.query_norm));
    return;
  } else {
    options.l2norm = false;
  }
  recipe.key_norm = static_cast<float>(normalised(recipe.key_norm));
  recipe.query_norm = static_cast<float>(normalised(recipe.query_norm));
}

void fit_shape(Recipe& recipe, const Contract& contract) {
  Shape& s = recipe.shape;
  if (!contract.grouped) s.HV = s.H;
  if (!contract.packed) recipe.lengths.clear(); // one sequence of all the tokens
  const bool customary = recipe.options.scale == customary_scale(s.K);
  s.K = nearest(contract.K, s.K);
  s.V = nearest(contract.V, s.V);
  if (customary) recipe.options.scale = customary_scale(s.K);
  const std::int64_t T = nearest(contract.T, s.T);
  if (!recipe.lengths.empty()) { // the last members take up the difference
    std::int64_t missing = T - s.T;
    for (std::size_t i = recipe.lengths.size(); i-- > 0 && missing != 0;) {
      const std::int64_t change = std::max(missing, -recipe.lengths[i]);
      recipe.lengths[i] += change;
      missing -= change;
    }
  }
  s.T = T;
}

} // namespace

Recipe fitted(Recipe recipe, const Contract& contract) {
  fit_rule(recipe, contract);
  fit_gate(recipe, contract);
  fit_beta(recipe, contract);
  fit_l2norm(recipe, contract);
  fit_shape(recipe, contract);
  if (!contract.initial_state) recipe.state = StatePattern::absent;
  return recipe;
}

} // namespace kdacheck
