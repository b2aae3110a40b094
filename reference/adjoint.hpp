#pragma once
// Reverse mode of the recurrence, written once for any number type.
//
// With Lambda = d loss / d S_t (which has received scale q_t do_t^T), X = Diag(alpha) S_{t-1}:
//   KDA    w = v - X^T k,  m = Lambda^T k,  Y = Lambda - beta k m^T = (I - beta k k^T) Lambda
//          dv = beta m     dbeta = m . w    dk = beta (Lambda w - X m)
//   DPLR   p = S_{t-1}^T b,  n = Lambda^T a,  Y = Lambda
//          dv = Lambda^T k   dk = Lambda v   da = -Lambda p   db = -S_{t-1} n
//   both   dq = scale S_t do,   d ln alpha_i = sum_j X_ij Y_ij,
//          d S_{t-1} = Diag(alpha) Y   (DPLR: - b n^T)
// States are kept at every ~sqrt(T)-th token and recomputed in between: memory of O(sqrt(T) K V) per head.

#include "recurrence.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace kdacheck {

/// sum of term(0) ... term(n - 1), in four partial sums whose additions need not wait for each other.
template <Number N> N sum_of(std::int64_t n, auto&& term) {
  N first(0.0), second(0.0), third(0.0), fourth(0.0);
  std::int64_t j = 0;
  for (; j + 3 < n; j += 4) {
    first = first + term(j);
    second = second + term(j + 1);
    third = third + term(j + 2);
    fourth = fourth + term(j + 3);
  }
  for (; j < n; ++j) first = first + term(j);
  return (first + second) + (third + fourth);
}

/// S x: [K]
template <Number N> std::vector<N> matrix_times(const State<N>& S, const std::vector<N>& x) {
  std::vector<N> y;
  for (std::int64_t i = 0; i < S.K; ++i)
    y.push_back(sum_of<N>(S.V, [&](std::int64_t j) { return N(S(i, j) * x[static_cast<std::size_t>(j)]); }));
  return y;
}

/// x . y
template <Number N> N dot(const std::vector<N>& x, const std::vector<N>& y) {
  return sum_of<N>(static_cast<std::int64_t>(x.size()),
                   [&](std::int64_t i) { return N(x[static_cast<std::size_t>(i)] * y[static_cast<std::size_t>(i)]); });
}

/// Sum over the columns of the elementwise product: [K]
template <Number N> std::vector<N> row_dots(const State<N>& X, const State<N>& Y) {
  std::vector<N> result;
  for (std::int64_t i = 0; i < X.K; ++i) result.push_back(sum_of<N>(X.V, [&](std::int64_t j) { return N(X(i, j) * Y(i, j)); }));
  return result;
}

/// Reverse mode of `step`: turns `Lambda` = d loss / d S_t into d loss / d S_{t-1} and returns what the token receives
/// (all but q).
template <Number N> TokenGradient<N> step_reverse(Rule rule, const Token<N>& t, const State<N>& previous, State<N>& Lambda) {
  TokenGradient<N> d;
  const State<N> X = decayed(t.alpha, previous);
  if (rule == Rule::kda) {
    const std::vector<N> w = minus(t.v, transposed_times(X, t.k));
    const std::vector<N> m = transposed_times(Lambda, t.k);
    d.v = times(t.beta, m);
    d.beta = dot(m, w);
    d.k = times(t.beta, minus(matrix_times(Lambda, w), matrix_times(X, m)));
    add_outer(Lambda, times(N(-t.beta), t.k), m);
    d.log_decay = row_dots(X, Lambda);
    Lambda = decayed(t.alpha, Lambda);
  } else {
    const std::vector<N> n = transposed_times(Lambda, t.a);
    d.v = transposed_times(Lambda, t.k);
    d.k = matrix_times(Lambda, t.v);
    d.a = times(N(-1.0), matrix_times(Lambda, transposed_times(previous, t.b)));
    d.b = times(N(-1.0), matrix_times(previous, n));
    d.log_decay = row_dots(X, Lambda);
    Lambda = decayed(t.alpha, Lambda);
    add_outer(Lambda, times(N(-1.0), t.b), n);
  }
  return d;
}

/// Reverse mode of `read_out`: adds scale q do^T to Lambda and returns dq = scale S do.
template <Number N>
std::vector<N> read_out_reverse(const N& scale, const Token<N>& t, const State<N>& S, const std::vector<N>& d_o, State<N>& Lambda) {
  add_outer(Lambda, times(scale, t.q), d_o);
  return times(scale, matrix_times(S, d_o));
}

/// Outputs and gradients of <d_o, o> + <d_final_state, S_final>.
template <Number N> struct Reverse {
  Forward<N> outputs;
  Gradients<N> gradients;
};

namespace adjoint_detail {

/// Elements [first, first + length) of a cotangent; zeros where it is absent.
template <Number N> std::vector<N> cotangent(const std::vector<float>& values, std::int64_t first, std::int64_t length) {
  std::vector<N> result(static_cast<std::size_t>(length), N(0.0));
  if (!values.empty())
    for (std::int64_t i = 0; i < length; ++i)
      result[static_cast<std::size_t>(i)] = N(static_cast<double>(values[static_cast<std::size_t>(first + i)]));
  return result;
}

} // namespace adjoint_detail

/// One sequence and value head, forward and back.
template <Number N>
void backward_of_head(const Problem& problem, const Reads<N> auto& read, const Sequence& sequence, std::int64_t head, Reverse<N>& result) {
  using adjoint_detail::cotangent;
  const Shape& shape = problem.shape;
  const Rule rule = problem.options.rule;
  const N scale(static_cast<double>(problem.options.scale));
  const std::int64_t T = sequence.length, V = shape.V;
  const std::int64_t segment = std::max<std::int64_t>(1, std::llround(std::ceil(std::sqrt(static_cast<double>(T)))));
  const auto token_at = [&](std::int64_t t) { return effective_token<N>(problem, read, sequence.first + t, head); };

  std::vector<State<N>> checkpoints; // before tokens 0, segment, 2 segment, ...
  State<N> S = starting_state<N>(problem, read, sequence.index, head);
  for (std::int64_t t = 0; t < T; ++t) {
    if (t % segment == 0) checkpoints.push_back(S);
    const Token<N> token = token_at(t);
    S = step(rule, token, S);
    const std::vector<N> o = read_out(scale, token, S);
    std::copy(o.begin(), o.end(), result.outputs.o.begin() + ((sequence.first + t) * shape.HV + head) * V);
  }
  const std::int64_t state_elements = shape.K * V, state_index = sequence.index * shape.HV + head;
  std::copy(S.element.begin(), S.element.end(), result.outputs.final_state.begin() + state_index * state_elements);

  State<N> Lambda(shape.K, V);
  Lambda.element = cotangent<N>(problem.d_final_state, state_index * state_elements, state_elements);
  for (std::int64_t last = T; last > 0;) {
    const std::int64_t first = (last - 1) / segment * segment;
    std::vector<State<N>> states{checkpoints[static_cast<std::size_t>(first / segment)]}; // S before first, first + 1, ..., last
    std::vector<Token<N>> tokens;
    for (std::int64_t t = first; t < last; ++t) {
      tokens.push_back(token_at(t));
      states.push_back(step(rule, tokens.back(), states.back()));
    }
    for (std::int64_t t = last - 1; t >= first; --t) {
      const std::int64_t row = sequence.first + t;
      const auto here = static_cast<std::size_t>(t - first);
      const std::vector<N> d_o = cotangent<N>(problem.d_o, (row * shape.HV + head) * V, V);
      std::vector<N> d_q = read_out_reverse(scale, tokens[here], states[here + 1], d_o, Lambda);
      TokenGradient<N> d = step_reverse(rule, tokens[here], states[here], Lambda);
      d.q = std::move(d_q);
      add_to_inputs<N>(problem, read, row, head, d, result.gradients);
    }
    last = first;
  }
  if (!problem.initial_state.empty()) effective_detail::add_row<N>(result.gradients[Input::initial_state], state_index, Lambda.element);
}

/// Outputs and gradients of a well-formed problem.
template <Number N> Reverse<N> backward(const Problem& problem, const Reads<N> auto& read) {
  const Shape& shape = problem.shape;
  Reverse<N> result;
  result.outputs.o.assign(static_cast<std::size_t>(shape.B * shape.T * shape.HV * shape.V), N(0.0));
  result.outputs.final_state.assign(static_cast<std::size_t>(sequence_count(problem) * shape.HV * shape.K * shape.V), N(0.0));
  result.gradients = zero_gradients<N>(problem);
  for (const Sequence& sequence : sequences(problem))
    for (std::int64_t head = 0; head < shape.HV; ++head) backward_of_head<N>(problem, read, sequence, head, result);
  return result;
}

template <Number N> Reverse<N> backward(const Problem& problem) { return backward<N>(problem, Exactly<N>{problem}); }

} // namespace kdacheck
