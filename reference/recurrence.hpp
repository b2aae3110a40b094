#pragma once
// The naive recurrence, written once for any number type.
//
//   KDA    S_t = (I - beta_t k_t k_t^T) Diag(alpha_t) S_{t-1} + beta_t k_t v_t^T
//   DPLR   S_t = (Diag(alpha_t) - a_t b_t^T) S_{t-1} + k_t v_t^T
//          o_t = S_t^T (scale q_t)
// Source: Kimi Linear technical report (arXiv 2510.26692), eq. 1 and section 6.2.

#include "effective.hpp"
#include "problem.hpp"
#include "token.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace kdacheck {

/// S^T x: [V]
template <Number N> std::vector<N> transposed_times(const State<N>& S, const std::vector<N>& x) {
  std::vector<N> y(static_cast<std::size_t>(S.V), N(0.0));
  for (std::int64_t i = 0; i < S.K; ++i)
    for (std::int64_t j = 0; j < S.V; ++j) {
      auto& sum = y[static_cast<std::size_t>(j)];
      sum = sum + S(i, j) * x[static_cast<std::size_t>(i)];
    }
  return y;
}

/// Diag(alpha) S
template <Number N> State<N> decayed(const std::vector<N>& alpha, const State<N>& S) {
  State<N> result(S.K, S.V);
  for (std::int64_t i = 0; i < S.K; ++i)
    for (std::int64_t j = 0; j < S.V; ++j) result(i, j) = alpha[static_cast<std::size_t>(i)] * S(i, j);
  return result;
}

/// S + x y^T
template <Number N> void add_outer(State<N>& S, const std::vector<N>& x, const std::vector<N>& y) {
  for (std::int64_t i = 0; i < S.K; ++i)
    for (std::int64_t j = 0; j < S.V; ++j) S(i, j) = S(i, j) + x[static_cast<std::size_t>(i)] * y[static_cast<std::size_t>(j)];
}

/// factor x
template <Number N> std::vector<N> times(const N& factor, std::vector<N> x) {
  for (N& element : x) element = factor * element;
  return x;
}

/// x - y
template <Number N> std::vector<N> minus(std::vector<N> x, const std::vector<N>& y) {
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = x[i] - y[i];
  return x;
}

/// S_t from S_{t-1}.
template <Number N> State<N> step(Rule rule, const Token<N>& t, const State<N>& S) {
  State<N> next = decayed(t.alpha, S);
  if (rule == Rule::kda) {
    // (I - beta k k^T) X + beta k v^T = X + beta k (v - X^T k)^T
    add_outer(next, times(t.beta, t.k), minus(t.v, transposed_times(next, t.k)));
  } else {
    add_outer(next, times(N(-1.0), t.a), transposed_times(S, t.b));
    add_outer(next, t.k, t.v);
  }
  return next;
}

/// o_t from S_t.
template <Number N> std::vector<N> read_out(const N& scale, const Token<N>& t, const State<N>& S) {
  return transposed_times(S, times(scale, t.q));
}

/// What a forward pass writes.
template <Number N> struct Forward {
  std::vector<N> o;           ///< [B,T,HV,V]
  std::vector<N> final_state; ///< [N,HV,K,V]
};

/// Nothing to observe.
struct Unobserved {
  template <class... Any> void operator()(const Any&...) const {}
};

/// The forward pass of a well-formed problem. After every token calls
/// observe(sequence, head, t in the sequence, token, S_{t-1}, S_t).
template <Number N> Forward<N> forward(const Problem& problem, const Reads<N> auto& read, auto&& observe) {
  const Shape& shape = problem.shape;
  const N scale(static_cast<double>(problem.options.scale));
  Forward<N> result;
  result.o.assign(static_cast<std::size_t>(shape.B * shape.T * shape.HV * shape.V), N(0.0));
  for (const Sequence& sequence : sequences(problem))
    for (std::int64_t head = 0; head < shape.HV; ++head) {
      State<N> S = starting_state<N>(problem, read, sequence.index, head);
      for (std::int64_t t = 0; t < sequence.length; ++t) {
        const std::int64_t row = sequence.first + t;
        const Token<N> token = effective_token<N>(problem, read, row, head);
        State<N> next = step(problem.options.rule, token, S);
        const std::vector<N> o = read_out(scale, token, next);
        std::copy(o.begin(), o.end(), result.o.begin() + (row * shape.HV + head) * shape.V);
        observe(sequence, head, t, token, S, next);
        S = std::move(next);
      }
      result.final_state.insert(result.final_state.end(), S.element.begin(), S.element.end());
    }
  return result;
}

template <Number N> Forward<N> forward(const Problem& problem) { return forward<N>(problem, Exactly<N>{problem}, Unobserved{}); }

} // namespace kdacheck
