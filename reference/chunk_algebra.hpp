#pragma once
// The chunkwise form of KDA and of DPLR in any number type and any chunk length: a second derivation of what the
// recurrence computes, and the source of every intermediate that a chunk kernel has.
//
// G_i: inclusive sum of ln alpha inside the chunk, S: state at its start.  E_ij = e^{G_i - G_j}, i >= j.
//   KDA   kd = k e^G   qd = scale q e^G   kr = k e^{G_C - G}
//         Akk_ij = k_i^T E_ij k_j (i > j)    Aqk_ij = scale q_i^T E_ij k_j (i >= j)
//         T = (I + diag(beta) Akk)^{-1}      W = T diag(beta) kd      U = T diag(beta) (V - kd S)
//         O = qd S + Aqk U                   S' = e^{G_C} S + kr^T U
//   DPLR  writes S_i = D_i S_{i-1} + k_i v_i^T - a_i p_i^T with p_i = S_{i-1}^T b_i; bd_i = b_i e^{G_{i-1}}
//         Abk_ij = b_i^T e^{G_{i-1} - G_j} k_j (i > j)   Aba likewise with a_j    Aqk, Aqa as above (i >= j)
//         T = (I + Aba)^{-1}                 W = T bd                 P = T (bd S + Abk V)
//         O = qd S + Aqk V - Aqa P           S' = e^{G_C} S + kr^T V - ar^T P
// Source: Kimi Linear technical report, sections 3.2 and 6.2; unrolling the DPLR recurrence gives the second form.
// ln alpha must be finite; in double, differences of G lose digits that the recurrence keeps.

#include "effective.hpp"
#include "matrix.hpp"
#include "recurrence.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace kdacheck {

/// Everything one chunk of C tokens of one value head goes through. Matrices that a rule does not have are empty.
template <Number N> struct Chunk {
  Matrix<N> G{};          ///< [C,K]
  Matrix<N> start{};      ///< [K,V] S
  Matrix<N> Akk{}, Aqk{}; ///< [C,C]; DPLR: Akk is Aba
  Matrix<N> Abk{}, Aqa{}; ///< [C,C], DPLR only
  Matrix<N> T{};          ///< [C,C]
  Matrix<N> W{};          ///< [C,K]
  Matrix<N> U{};          ///< [C,V]: what is written at k; DPLR: P, what is taken back at a
  Matrix<N> O{};          ///< [C,V]
  Matrix<N> end{};        ///< [K,V] S'
};

namespace chunk_detail {

/// A [C, length] matrix whose rows are a member of the tokens.
template <Number N> Matrix<N> rows_of(const std::vector<Token<N>>& tokens, std::vector<N> Token<N>::*member) {
  const auto length = static_cast<std::int64_t>((tokens.front().*member).size());
  return matrix_of<N>(static_cast<std::int64_t>(tokens.size()), length, [&](std::int64_t i, std::int64_t c) {
    return (tokens[static_cast<std::size_t>(i)].*member)[static_cast<std::size_t>(c)];
  });
}

template <Number N> Matrix<N> cumulative_rows(const Matrix<N>& g) {
  Matrix<N> G = g;
  for (std::int64_t i = 1; i < G.rows; ++i)
    for (std::int64_t c = 0; c < G.columns; ++c) G(i, c) = G(i - 1, c) + g(i, c);
  return G;
}

/// sum_c x_ic y_jc e^{X_ic - Y_jc} where i - j >= least, else 0.
template <Number N> Matrix<N> scores(const Matrix<N>& x, const Matrix<N>& X, const Matrix<N>& y, const Matrix<N>& Y, std::int64_t least) {
  using std::exp;
  return matrix_of<N>(x.rows, y.rows, [&](std::int64_t i, std::int64_t j) {
    N sum(0.0);
    if (i - j >= least)
      for (std::int64_t c = 0; c < x.columns; ++c) sum = sum + x(i, c) * y(j, c) * exp(N(X(i, c) - Y(j, c)));
    return sum;
  });
}

/// x (.) e^X
template <Number N> Matrix<N> scaled_by_exp(const Matrix<N>& x, const Matrix<N>& X) {
  using std::exp;
  return matrix_of<N>(x.rows, x.columns, [&](std::int64_t i, std::int64_t c) { return N(x(i, c) * exp(X(i, c))); });
}

/// diag(d) A
template <Number N> Matrix<N> rows_scaled(const Matrix<N>& A, auto&& d) {
  return matrix_of<N>(A.rows, A.columns, [&](std::int64_t i, std::int64_t j) { return N(d(i) * A(i, j)); });
}

} // namespace chunk_detail

/// One chunk from the state at its start. At least one token.
template <Number N> Chunk<N> chunk_of(Rule rule, const std::vector<Token<N>>& tokens, const N& scale, const Matrix<N>& S) {
  using namespace chunk_detail;
  using std::exp;
  const auto C = static_cast<std::int64_t>(tokens.size());
  const Matrix<N> k = rows_of(tokens, &Token<N>::k), v = rows_of(tokens, &Token<N>::v);
  const Matrix<N> q = rows_scaled(rows_of(tokens, &Token<N>::q), [&](std::int64_t) { return scale; });
  const Matrix<N> g = rows_of(tokens, &Token<N>::log_decay);
  const auto beta = [&](std::int64_t i) { return tokens[static_cast<std::size_t>(i)].beta; };

  Chunk<N> chunk{.G = cumulative_rows(g), .start = S};
  const Matrix<N>& G = chunk.G;
  const Matrix<N> to_end = matrix_of<N>(C, G.columns, [&](std::int64_t i, std::int64_t c) { return N(G(C - 1, c) - G(i, c)); });
  const Matrix<N> qd = scaled_by_exp(q, G), kr = scaled_by_exp(k, to_end);
  const Matrix<N> kept = rows_scaled(S, [&](std::int64_t c) { return N(exp(G(C - 1, c))); });
  chunk.Aqk = scores(q, G, k, G, 0);
  if (rule == Rule::kda) {
    const Matrix<N> kd = scaled_by_exp(k, G);
    chunk.Akk = scores(k, G, k, G, 1);
    chunk.T = unit_lower_inverse(rows_scaled(chunk.Akk, beta));
    chunk.W = chunk.T * rows_scaled(kd, beta);
    chunk.U = chunk.T * rows_scaled(v - kd * S, beta);
    chunk.O = qd * S + chunk.Aqk * chunk.U;
    chunk.end = kept + transposed(kr) * chunk.U;
  } else {
    const Matrix<N> a = rows_of(tokens, &Token<N>::a), b = rows_of(tokens, &Token<N>::b);
    const Matrix<N> before = G - g; // G_{i-1}
    const Matrix<N> bd = scaled_by_exp(b, before);
    chunk.Abk = scores(b, before, k, G, 1);
    chunk.Akk = scores(b, before, a, G, 1);
    chunk.Aqa = scores(q, G, a, G, 0);
    chunk.T = unit_lower_inverse(chunk.Akk);
    chunk.W = chunk.T * bd;
    chunk.U = chunk.T * (bd * S + chunk.Abk * v);
    chunk.O = qd * S + chunk.Aqk * v - chunk.Aqa * chunk.U;
    chunk.end = kept + transposed(kr) * v - transposed(scaled_by_exp(a, to_end)) * chunk.U;
  }
  return chunk;
}

/// The forward pass in chunks of C tokens, the last of a sequence shorter. After every chunk calls
/// observe(sequence, head, first token of the chunk in the sequence, chunk).
template <Number N> Forward<N> forward_by_chunks(const Problem& problem, const Reads<N> auto& read, std::int64_t C, auto&& observe) {
  const Shape& shape = problem.shape;
  const N scale(static_cast<double>(problem.options.scale));
  Forward<N> result;
  result.o.assign(static_cast<std::size_t>(shape.B * shape.T * shape.HV * shape.V), N(0.0));
  for (const Sequence& sequence : sequences(problem))
    for (std::int64_t head = 0; head < shape.HV; ++head) {
      Matrix<N> S(shape.K, shape.V);
      S.element = starting_state<N>(problem, read, sequence.index, head).element;
      for (std::int64_t first = 0; first < sequence.length; first += C) {
        std::vector<Token<N>> tokens;
        for (std::int64_t t = first; t < std::min(first + C, sequence.length); ++t)
          tokens.push_back(effective_token<N>(problem, read, sequence.first + t, head));
        const Chunk<N> chunk = chunk_of(problem.options.rule, tokens, scale, S);
        for (std::int64_t i = 0; i < chunk.O.rows; ++i)
          for (std::int64_t j = 0; j < shape.V; ++j)
            result.o[static_cast<std::size_t>(((sequence.first + first + i) * shape.HV + head) * shape.V + j)] = chunk.O(i, j);
        observe(sequence, head, first, chunk);
        S = chunk.end;
      }
      result.final_state.insert(result.final_state.end(), S.element.begin(), S.element.end());
    }
  return result;
}

template <Number N> Forward<N> forward_by_chunks(const Problem& problem, std::int64_t C) {
  return forward_by_chunks<N>(problem, Exactly<N>{problem}, C, Unobserved{});
}

} // namespace kdacheck
