#pragma once
// The one list of a recipe's fields: token, simplification and generation all walk it. A new field gets a line here.

#include "recipe.hpp"

#include <array>
#include <string_view>

namespace kdacheck {

/// Names of an enumeration's values in their order.
template <class Enum> inline constexpr std::array<std::string_view, 0> names_of{};
template <>
inline constexpr std::array<std::string_view, 9> names_of<KeyPattern>{"gaussian",    "uniform", "near_identical", "alternating", "constant",
                                                                      "signed_unit", "walsh",   "sparse_zero",    "many_lengths"};
template <>
inline constexpr std::array<std::string_view, 10> names_of<GatePattern>{
    "constant", "jitter", "per_head", "per_channel", "mixed", "sparse_reset", "published_init", "trained", "softplus_gauss", "logits"};
template <>
inline constexpr std::array<std::string_view, 7> names_of<BetaPattern>{"constant", "uniform",  "sigmoid_gauss", "near_one",
                                                                       "halves",   "zero_one", "one_two"};
template <>
inline constexpr std::array<std::string_view, 6> names_of<ValuePattern>{"gaussian",  "zero",           "constant",
                                                                        "converged", "small_integers", "held"};
template <>
inline constexpr std::array<std::string_view, 7> names_of<StatePattern>{"absent",   "zero", "gaussian", "asymmetric",
                                                                        "integers", "warm", "held"};
template <>
inline constexpr std::array<std::string_view, 6> names_of<LossPattern>{"none",         "everywhere", "outputs_only", "final_state_only",
                                                                       "single_token", "single_head"};
template <> inline constexpr std::array<std::string_view, 3> names_of<DplrPattern>{"of_kda", "rwkv7", "benign"};
template <> inline constexpr std::array<std::string_view, 2> names_of<Rule>{"kda", "dplr"};
template <> inline constexpr std::array<std::string_view, 5> names_of<GateForm>{"log_decay", "softplus", "bounded", "sigmoid", "absent"};
template <> inline constexpr std::array<std::string_view, 3> names_of<BetaForm>{"value", "sigmoid", "twice_sigmoid"};

/// Calls visit(name, member) for every field but the regime's name, in the order of tokens. With a second recipe:
/// visit(name, member, its member).
template <class Visit, class... Recipes> void each_field(Visit&& visit, Recipes&&... r) {
  visit("B", r.shape.B...);
  visit("T", r.shape.T...);
  visit("H", r.shape.H...);
  visit("HV", r.shape.HV...);
  visit("K", r.shape.K...);
  visit("V", r.shape.V...);
  visit("lengths", r.lengths...);
  visit("rule", r.options.rule...);
  visit("gate", r.options.gate...);
  visit("lower_bound", r.options.lower_bound...);
  visit("beta", r.options.beta...);
  visit("l2norm", r.options.l2norm...);
  visit("scale", r.options.scale...);
  visit("keys", r.keys...);
  visit("key_noise", r.key_noise...);
  visit("key_norm", r.key_norm...);
  visit("query_norm", r.query_norm...);
  visit("gates", r.gates...);
  visit("decay", r.decay...);
  visit("decay_spread", r.decay_spread...);
  visit("decay_center", r.decay_center...);
  visit("gate_model", r.gate_model...);
  visit("gate_gain", r.gate_gain...);
  visit("gate_bias", r.gate_bias...);
  visit("dead_heads", r.dead_heads...);
  visit("shared_decay", r.shared_decay...);
  visit("betas", r.betas...);
  visit("beta_center", r.beta_center...);
  visit("beta_spread", r.beta_spread...);
  visit("values", r.values...);
  visit("value_scale", r.value_scale...);
  visit("residual", r.residual...);
  visit("state", r.state...);
  visit("state_scale", r.state_scale...);
  visit("loss", r.loss...);
  visit("dplr", r.dplr...);
  visit("dplr_strength", r.dplr_strength...);
  visit("seed", r.seed...);
}

} // namespace kdacheck
