// The nearest recipe inside what a contract declares: forms and sizes give way, decay, beta and |k| do not.

#include "../cases/ingredients.hpp"

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

/// The largest |ln alpha| of any token.
double strongest_decay(Recipe recipe) {
  recipe.options.gate = GateForm::log_decay;
  std::vector<float> row(static_cast<std::size_t>(recipe.shape.K));
  float least = 0;
  for (std::uint32_t head = 0; head < recipe.shape.HV; ++head) {
    const HeadGate gate = head_gate(recipe, head);
    for (std::int64_t n = 0; n < sequence_count(recipe); ++n) {
      const std::int64_t length = recipe.lengths.empty() ? recipe.shape.T : recipe.lengths[static_cast<std::size_t>(n)];
      for (std::int64_t t = 0; t < length; ++t) {
        make_gate(recipe, gate, {head, static_cast<std::uint32_t>(n), static_cast<std::uint32_t>(t)}, Format::fp32, row);
        least = std::min(least, *std::min_element(row.begin(), row.end()));
      }
    }
  }
  return -static_cast<double>(least);
}

/// The bound of a bounded gate that makes room for the decay, never the other way round; not below what the kernel
/// declares unless the decay itself is.
float bound_for(const Recipe& recipe, const Contract& contract) {
  const double strongest = strongest_decay(recipe), declared = -contract.g_min;
  const double roomy = std::max(strongest, -static_cast<double>(recipe.options.lower_bound));
  return -static_cast<float>(strongest <= declared ? std::min(roomy, declared) : strongest);
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
    if (form == GateForm::bounded) options.lower_bound = bound_for(recipe, contract);
    options.gate = form;
    return;
  }
}

/// Regimes that walk through sizes and forms in every run are not about beta: a kernel that takes none above 1 walks with half of it.
void fit_strength(Recipe& recipe, const Contract& contract) {
  const Regime* regime = regime_named(recipe.regime);
  const bool halved = recipe.betas == BetaPattern::uniform || recipe.betas == BetaPattern::sigmoid_gauss;
  if (!regime || regime->rounds == 0 || contract.beta_max > 1 || !halved || recipe.beta_center <= 0.5f) return;
  recipe.beta_center /= 2;
  if (recipe.betas == BetaPattern::uniform) recipe.beta_spread /= 2;
  if (recipe.options.beta == BetaForm::twice_sigmoid) recipe.options.beta = BetaForm::sigmoid;
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
  fit_shape(recipe, contract);
  fit_gate(recipe, contract);
  fit_strength(recipe, contract);
  fit_beta(recipe, contract);
  fit_l2norm(recipe, contract);
  if (contract.decay_per_head) recipe.shared_decay = true;
  if (contract.scale_form == ScaleForm::rsqrt_K) recipe.options.scale = customary_scale(recipe.shape.K);
  if (contract.scale_form == ScaleForm::fixed) recipe.options.scale = contract.scale;
  if (!contract.initial_state) recipe.state = StatePattern::absent;
  return recipe;
}

} // namespace kdacheck
