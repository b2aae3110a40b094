#include "problem.hpp"

#include <algorithm>
#include <cmath>

namespace kdacheck {
namespace {

template <class Enum, std::size_t n> std::optional<Enum> named(std::string_view text, const std::array<Enum, n>& all) {
  for (Enum value : all)
    if (name(value) == text) return value;
  return std::nullopt;
}

constexpr std::array all_rules{Rule::kda, Rule::dplr};
constexpr std::array all_gate_forms{GateForm::log_decay, GateForm::softplus, GateForm::bounded, GateForm::sigmoid, GateForm::absent};
constexpr std::array all_beta_forms{BetaForm::value, BetaForm::sigmoid, BetaForm::twice_sigmoid};

std::size_t product(const std::array<std::int64_t, 4>& shape) {
  return static_cast<std::size_t>(shape[0] * shape[1] * shape[2] * shape[3]);
}

bool expected(Input input, const Options& options) {
  const bool parametric = options.gate == GateForm::softplus || options.gate == GateForm::bounded;
  switch (input) {
  case Input::g: return options.gate != GateForm::absent;
  case Input::beta: return options.rule == Rule::kda;
  case Input::a:
  case Input::b: return options.rule == Rule::dplr;
  case Input::A_log:
  case Input::dt_bias: return parametric;
  default: return true;
  }
}

bool optional(Input input, const Options& options) {
  const bool parametric = options.gate == GateForm::softplus || options.gate == GateForm::bounded;
  return input == Input::initial_state || (input == Input::dt_bias && parametric);
}

} // namespace

std::string_view name(Rule rule) { return rule == Rule::kda ? "kda" : "dplr"; }

std::string_view name(GateForm form) {
  switch (form) {
  case GateForm::log_decay: return "log_decay";
  case GateForm::softplus: return "softplus";
  case GateForm::bounded: return "bounded";
  case GateForm::sigmoid: return "sigmoid";
  default: return "absent";
  }
}

std::string_view name(BetaForm form) {
  switch (form) {
  case BetaForm::value: return "value";
  case BetaForm::sigmoid: return "sigmoid";
  default: return "twice_sigmoid";
  }
}

std::string_view name(Input input) {
  constexpr std::array<std::string_view, all_inputs.size()> names{"q", "k", "v",     "g",       "beta",
                                                                  "a", "b", "A_log", "dt_bias", "initial_state"};
  return names[static_cast<std::size_t>(input)];
}

std::string_view name(Output output) { return output == Output::o ? "o" : "final_state"; }

std::optional<Rule> rule_named(std::string_view text) { return named(text, all_rules); }
std::optional<GateForm> gate_form_named(std::string_view text) { return named(text, all_gate_forms); }
std::optional<BetaForm> beta_form_named(std::string_view text) { return named(text, all_beta_forms); }

const std::vector<float>& Problem::operator[](Input input) const {
  switch (input) {
  case Input::q: return q;
  case Input::k: return k;
  case Input::v: return v;
  case Input::g: return g;
  case Input::beta: return beta;
  case Input::a: return a;
  case Input::b: return b;
  case Input::A_log: return A_log;
  case Input::dt_bias: return dt_bias;
  default: return initial_state;
  }
}

std::vector<float>& Problem::operator[](Input input) { return const_cast<std::vector<float>&>(static_cast<const Problem&>(*this)[input]); }

std::int64_t sequence_count(const Problem& problem) {
  return problem.cu_seqlens.empty() ? problem.shape.B : static_cast<std::int64_t>(problem.cu_seqlens.size()) - 1;
}

std::vector<Sequence> sequences(const Problem& problem) {
  std::vector<Sequence> result;
  const std::int64_t N = sequence_count(problem);
  for (std::int64_t n = 0; n < N; ++n) {
    if (problem.cu_seqlens.empty()) {
      result.push_back({n, n * problem.shape.T, problem.shape.T});
    } else {
      const auto first = problem.cu_seqlens[static_cast<std::size_t>(n)];
      result.push_back({n, first, problem.cu_seqlens[static_cast<std::size_t>(n) + 1] - first});
    }
  }
  return result;
}

std::array<std::int64_t, 4> shape_of(Input input, const Shape& s, std::int64_t N) {
  switch (input) {
  case Input::q:
  case Input::k: return {s.B, s.T, s.H, s.K};
  case Input::v: return {s.B, s.T, s.HV, s.V};
  case Input::g:
  case Input::a:
  case Input::b: return {s.B, s.T, s.HV, s.K};
  case Input::beta: return {s.B, s.T, s.HV, 1};
  case Input::A_log: return {s.HV, 1, 1, 1};
  case Input::dt_bias: return {s.HV, s.K, 1, 1};
  default: return {N, s.HV, s.K, s.V};
  }
}

std::array<std::int64_t, 4> shape_of(Output output, const Shape& s, std::int64_t N) {
  if (output == Output::o) return {s.B, s.T, s.HV, s.V};
  return {N, s.HV, s.K, s.V};
}

std::size_t rank_of(Input input) {
  switch (input) {
  case Input::A_log: return 1;
  case Input::dt_bias: return 2;
  case Input::beta: return 3;
  default: return 4;
  }
}

Format format_of(Input input, const InputFormats& formats) {
  switch (input) {
  case Input::q:
  case Input::k:
  case Input::v:
  case Input::a:
  case Input::b: return formats.qkv;
  case Input::g: return formats.gate;
  case Input::beta: return formats.beta;
  default: return Format::fp32;
  }
}

std::optional<std::string> malformed(const Problem& problem) {
  const Shape& s = problem.shape;
  if (s.B < 1 || s.T < 0 || s.H < 1 || s.HV < 1 || s.K < 1 || s.V < 1)
    return "shape: B, H, HV, K and V must be at least 1 and T at least 0";
  if (s.HV % s.H != 0) return "shape: HV (" + std::to_string(s.HV) + ") must be a multiple of H (" + std::to_string(s.H) + ")";
  if (!problem.cu_seqlens.empty()) {
    const auto& cu = problem.cu_seqlens;
    if (s.B != 1) return "cu_seqlens: packed sequences need B = 1, not " + std::to_string(s.B);
    if (cu.size() < 2) return "cu_seqlens: needs at least two entries";
    if (cu.front() != 0) return "cu_seqlens: the first entry must be 0, not " + std::to_string(cu.front());
    if (!std::is_sorted(cu.begin(), cu.end())) return "cu_seqlens: entries must not decrease";
    if (cu.back() != s.T)
      return "cu_seqlens: the last entry (" + std::to_string(cu.back()) + ") must equal T (" + std::to_string(s.T) + ")";
  }
  if (!std::isfinite(problem.options.scale)) return "scale is not finite";
  if (problem.options.gate == GateForm::bounded && !(problem.options.lower_bound <= 0)) return "lower_bound must be a number <= 0";
  const std::int64_t N = sequence_count(problem);
  for (Input input : all_inputs) {
    const auto& values = problem[input];
    const std::string label(name(input));
    const std::size_t size = product(shape_of(input, s, N));
    const bool needed = expected(input, problem.options);
    if (optional(input, problem.options) ? (!values.empty() && values.size() != size) : (needed ? values.size() != size : !values.empty()))
      return label + ": has " + std::to_string(values.size()) + " elements where " +
             std::to_string(needed || optional(input, problem.options) ? size : 0) + " are due";
    for (float value : values)
      if (!std::isfinite(value) && !(input == Input::A_log && value < 0 && std::isinf(value)))
        return label + ": has a value that is not finite";
  }
  if (!problem.d_o.empty() && problem.d_o.size() != product(shape_of(Output::o, s, N))) return "d_o: wrong number of elements";
  if (!problem.d_final_state.empty() && problem.d_final_state.size() != product(shape_of(Output::final_state, s, N)))
    return "d_final_state: wrong number of elements";
  return std::nullopt;
}

} // namespace kdacheck
