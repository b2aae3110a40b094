#pragma once
// From a problem to what the recurrence sees, token by token and value head by value head, and the reverse mode of it.

#include "gate.hpp"
#include "problem.hpp"
#include "token.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <tuple>
#include <vector>

namespace kdacheck {

/// Reads an element of a tensor as a number. Whatever is called like this may stand in for it, for instance one that
/// adds a perturbation far below fp32.
template <Number N> struct Exactly {
  const Problem& problem;
  N operator()(Input input, std::size_t index) const { return N(static_cast<double>(problem[input][index])); }
};

template <class Reader, class N>
concept Reads = requires(const Reader reader) {
  { reader(Input::q, std::size_t{0}) } -> std::convertible_to<N>;
};

namespace effective_detail {

template <Number N> std::vector<N> row(const Reads<N> auto& read, Input input, std::int64_t index, std::int64_t length) {
  std::vector<N> values;
  values.reserve(static_cast<std::size_t>(length));
  for (std::int64_t i = 0; i < length; ++i) values.push_back(read(input, static_cast<std::size_t>(index * length + i)));
  return values;
}

/// Row of q or k that a value head reads.
inline std::int64_t key_row(const Shape& shape, std::int64_t token, std::int64_t head) {
  return token * shape.H + head / (shape.HV / shape.H);
}

template <Number N>
Gate<N> gate_at(const Problem& problem, const Reads<N> auto& read, std::int64_t token, std::int64_t head, std::int64_t i) {
  const std::int64_t HV = problem.shape.HV, K = problem.shape.K;
  Gate<N> gate{.form = problem.options.gate};
  if (gate.form == GateForm::absent) return gate;
  gate.x = read(Input::g, static_cast<std::size_t>((token * HV + head) * K + i));
  if (gate.form != GateForm::softplus && gate.form != GateForm::bounded) return gate;
  gate.lower_bound = N(static_cast<double>(problem.options.lower_bound));
  gate.A_log = read(Input::A_log, static_cast<std::size_t>(head));
  if (!problem.dt_bias.empty()) gate.dt_bias = read(Input::dt_bias, static_cast<std::size_t>(head * K + i));
  return gate;
}

} // namespace effective_detail

/// The token in row `token` (of B T rows) as value head `head` sees it.
template <Number N> Token<N> effective_token(const Problem& problem, const Reads<N> auto& read, std::int64_t token, std::int64_t head) {
  using namespace effective_detail;
  const auto& [shape, options] = std::tie(problem.shape, problem.options);
  const std::int64_t HV = shape.HV, K = shape.K;
  Token<N> result;
  result.q = row<N>(read, Input::q, key_row(shape, token, head), K);
  result.k = row<N>(read, Input::k, key_row(shape, token, head), K);
  if (options.l2norm) {
    result.q = normalised<N>(result.q);
    result.k = normalised<N>(result.k);
  }
  result.v = row<N>(read, Input::v, token * HV + head, shape.V);
  for (std::int64_t i = 0; i < K; ++i) {
    const Decay<N> channel = decay(gate_at<N>(problem, read, token, head, i));
    result.log_decay.push_back(channel.log_decay);
    result.alpha.push_back(channel.alpha);
  }
  if (options.rule == Rule::kda) {
    result.beta = beta_of<N>(options.beta, read(Input::beta, static_cast<std::size_t>(token * HV + head)));
  } else {
    result.a = row<N>(read, Input::a, token * HV + head, K);
    result.b = row<N>(read, Input::b, token * HV + head, K);
  }
  return result;
}

/// The state that sequence n, value head `head` starts from.
template <Number N> State<N> starting_state(const Problem& problem, const Reads<N> auto& read, std::int64_t n, std::int64_t head) {
  State<N> S(problem.shape.K, problem.shape.V);
  if (problem.initial_state.empty()) return S;
  S.element = effective_detail::row<N>(read, Input::initial_state, n * problem.shape.HV + head, problem.shape.K * problem.shape.V);
  return S;
}

/// Derivatives of a loss with respect to the tensors of a problem, by Input, each in the shape of its primal; empty
/// where the problem has no such tensor.
template <Number N> struct Gradients {
  std::array<std::vector<N>, all_inputs.size()> tensor;
  const std::vector<N>& operator[](Input input) const { return tensor[static_cast<std::size_t>(input)]; }
  std::vector<N>& operator[](Input input) { return tensor[static_cast<std::size_t>(input)]; }
};

/// All zero.
template <Number N> Gradients<N> zero_gradients(const Problem& problem) {
  Gradients<N> result;
  for (Input input : all_inputs) result[input].assign(problem[input].size(), N(0.0));
  return result;
}

namespace effective_detail {

template <Number N> void add_row(std::vector<N>& target, std::int64_t index, std::span<const N> values) {
  const std::size_t first = static_cast<std::size_t>(index) * values.size();
  for (std::size_t i = 0; i < values.size(); ++i) target[first + i] = target[first + i] + values[i];
}

} // namespace effective_detail

/// Reverse mode of `effective_token`: adds to the raw tensors what this token and head contribute. q and k of a group
/// collect from every value head that reads them, A_log and dt_bias from every token.
template <Number N>
void add_to_inputs(const Problem& problem, const Reads<N> auto& read, std::int64_t token, std::int64_t head, const TokenGradient<N>& d,
                   Gradients<N>& gradients) {
  using namespace effective_detail;
  const auto& [shape, options] = std::tie(problem.shape, problem.options);
  const std::int64_t HV = shape.HV, K = shape.K;
  const std::int64_t shared = key_row(shape, token, head), own = token * HV + head;
  const auto through_norm = [&](Input input, const std::vector<N>& d_y) {
    return options.l2norm ? normalised_reverse<N>(row<N>(read, input, shared, K), d_y) : d_y;
  };
  add_row<N>(gradients[Input::q], shared, through_norm(Input::q, d.q));
  add_row<N>(gradients[Input::k], shared, through_norm(Input::k, d.k));
  add_row<N>(gradients[Input::v], own, d.v);
  if (options.rule == Rule::kda) {
    const N d_x = beta_reverse<N>(options.beta, read(Input::beta, static_cast<std::size_t>(own)), d.beta);
    add_row<N>(gradients[Input::beta], own, std::span(&d_x, 1));
  } else {
    add_row<N>(gradients[Input::a], own, d.a);
    add_row<N>(gradients[Input::b], own, d.b);
  }
  if (options.gate == GateForm::absent) return;
  for (std::int64_t i = 0; i < K; ++i) {
    const Gate<N> gate = gate_at<N>(problem, read, token, head, i);
    const GateGradient<N> through = decay_reverse<N>(gate, decay(gate), d.log_decay[static_cast<std::size_t>(i)]);
    add_row<N>(gradients[Input::g], own * K + i, std::span(&through.x, 1));
    if (!gradients[Input::A_log].empty()) add_row<N>(gradients[Input::A_log], head, std::span(&through.A_log, 1));
    if (!gradients[Input::dt_bias].empty()) add_row<N>(gradients[Input::dt_bias], head * K + i, std::span(&through.x, 1));
  }
}

} // namespace kdacheck
