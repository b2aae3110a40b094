// Whether a problem lies in the domain that a contract declares.

#include "contract.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace kdacheck {
namespace {

std::string digits(double value) {
  char buffer[40];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::general, 9).ptr;
  return {buffer, end};
}

template <class Enum> bool holds(const std::vector<Enum>& list, Enum value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

std::optional<std::string> outside(const SizeRange& range, std::string_view label, std::int64_t size) {
  if (range.contains(size)) return std::nullopt;
  std::string text = std::string(label) + "=" + std::to_string(size) + " is not in " + std::to_string(range.least) + "..";
  if (range.most != SizeRange{}.most) text += std::to_string(range.most);
  if (range.multiple != 1) text += "/" + std::to_string(range.multiple);
  return text;
}

double softplus(double x) { return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x)); }
double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

/// Log decay of channel `at` of g; `row` is its [HV,K] index.
double log_decay(const Problem& problem, std::size_t at, std::size_t row) {
  const double x = problem.g[at];
  const double shifted = x + (problem.dt_bias.empty() ? 0.0 : problem.dt_bias[row]);
  const auto head = row / static_cast<std::size_t>(problem.shape.K);
  switch (problem.options.gate) {
  case GateForm::log_decay: return x;
  case GateForm::softplus: return -std::exp(static_cast<double>(problem.A_log[head])) * softplus(shifted);
  case GateForm::bounded: return problem.options.lower_bound * sigmoid(std::exp(static_cast<double>(problem.A_log[head])) * shifted);
  case GateForm::sigmoid: return -softplus(-x);
  default: return 0;
  }
}

std::optional<std::string> gate_outside(const Contract& contract, const Problem& problem) {
  if (problem.options.gate == GateForm::absent) return std::nullopt;
  const auto rows = static_cast<std::size_t>(problem.shape.HV * problem.shape.K);
  double least = 0;
  for (std::size_t at = 0; at < problem.g.size(); ++at) {
    const double g = log_decay(problem, at, at % rows);
    if (g > 0) return "g=" + digits(g) + " is positive";
    least = std::min(least, g);
  }
  if (least < contract.g_min) return "g=" + digits(least) + " is below g_min=" + digits(contract.g_min);
  return std::nullopt;
}

/// Where channels of a head must share their decay: the first place where they do not.
std::optional<std::string> sharing_outside(const Contract& contract, const Problem& problem) {
  if (!contract.decay_per_head) return std::nullopt;
  const auto K = static_cast<std::size_t>(problem.shape.K);
  for (const Input input : {Input::g, Input::dt_bias}) {
    const std::vector<float>& rows = problem[input];
    for (std::size_t at = 0; at < rows.size(); ++at)
      if (rows[at] != rows[at / K * K] && !(std::isnan(rows[at]) && std::isnan(rows[at / K * K])))
        return std::string(name(input)) + " differs between channels of a head";
  }
  return std::nullopt;
}

std::optional<std::string> scale_outside(const Contract& contract, const Problem& problem) {
  const float scale = problem.options.scale;
  const auto usual = static_cast<float>(1 / std::sqrt(static_cast<double>(problem.shape.K)));
  if (contract.scale_form == ScaleForm::rsqrt_K && scale != usual) return "scale=" + digits(scale) + " is not K^-1/2";
  if (contract.scale_form == ScaleForm::fixed && scale != contract.scale)
    return "scale=" + digits(scale) + " is not " + digits(contract.scale);
  return std::nullopt;
}

std::optional<std::string> beta_outside(const Contract& contract, const Problem& problem) {
  for (float x : problem.beta) {
    const double beta = problem.options.beta == BetaForm::value     ? x
                        : problem.options.beta == BetaForm::sigmoid ? sigmoid(x)
                                                                    : 2 * sigmoid(x);
    if (!(beta >= contract.beta_min && beta <= contract.beta_max))
      return "beta=" + digits(beta) + " is not in " + digits(contract.beta_min) + ".." + digits(contract.beta_max);
  }
  return std::nullopt;
}

std::optional<std::string> key_outside(const Contract& contract, const Problem& problem) {
  if (problem.options.l2norm || problem.options.rule == Rule::dplr) return std::nullopt;
  const auto K = static_cast<std::size_t>(problem.shape.K);
  double largest = 0;
  for (std::size_t row = 0; row + K <= problem.k.size(); row += K) {
    double square = 0;
    for (std::size_t c = 0; c < K; ++c) square += static_cast<double>(problem.k[row + c]) * problem.k[row + c];
    largest = std::max(largest, square);
  }
  if (std::sqrt(largest) <= contract.k_norm_max) return std::nullopt;
  return "|k|=" + digits(std::sqrt(largest)) + " is above k_norm_max=" + digits(contract.k_norm_max);
}

std::optional<std::string> value_outside(const Contract& contract, const Problem& problem) {
  for (const Input input : {Input::v, Input::initial_state})
    for (const float x : problem[input])
      if (std::isfinite(x) && std::fabs(x) > contract.value_max)
        return std::string(name(input)) + " holds " + digits(x) + ", above value_max=" + digits(contract.value_max);
  return std::nullopt;
}

/// A value that the kernel's input format cannot hold: the kernel would be judged on other numbers than it was given.
std::optional<std::string> format_outside(const Contract& contract, const Problem& problem) {
  const InputFormats wanted = input_formats(contract);
  for (Input input : all_inputs) {
    const Format format = format_of(input, wanted);
    for (float x : problem[input])
      if (std::isfinite(x) && round_to(format, x) != x)
        return std::string(name(input)) + " holds " + digits(x) + ", which is not a number of " + std::string(name(format));
  }
  return std::nullopt;
}

} // namespace

std::optional<std::string> outside_domain(const Contract& contract, const Problem& problem) {
  const Shape& shape = problem.shape;
  const Options& options = problem.options;
  if (!holds(contract.rules, options.rule)) return "rule " + std::string(name(options.rule)) + " is not among rule";
  if (!holds(contract.gates, options.gate)) return "gate form " + std::string(name(options.gate)) + " is not among gates";
  if (options.rule == Rule::kda && !holds(contract.betas, options.beta))
    return "beta form " + std::string(name(options.beta)) + " is not among betas";
  if (options.l2norm && !contract.l2norm_inside) return "l2norm inside the kernel is not offered";
  if (!options.l2norm && !contract.l2norm_outside) return "l2norm outside the kernel is not offered";
  if (auto why = outside(contract.K, "K", shape.K)) return why;
  if (auto why = outside(contract.V, "V", shape.V)) return why;
  if (auto why = outside(contract.T, "T", shape.T)) return why;
  if (!contract.grouped && shape.HV != shape.H) return "HV=" + std::to_string(shape.HV) + " differs from H=" + std::to_string(shape.H);
  if (!contract.packed && !problem.cu_seqlens.empty()) return "packed sequences are not offered";
  if (!contract.initial_state && !problem.initial_state.empty()) return "an initial state is not offered";
  if (auto why = scale_outside(contract, problem)) return why;
  if (auto why = format_outside(contract, problem)) return why;
  if (auto why = gate_outside(contract, problem)) return why;
  if (auto why = sharing_outside(contract, problem)) return why;
  if (auto why = beta_outside(contract, problem)) return why;
  if (auto why = value_outside(contract, problem)) return why;
  return key_outside(contract, problem);
}

} // namespace kdacheck
