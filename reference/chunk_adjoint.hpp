#pragma once
// Reverse mode of the chunkwise form, in any number type and chunk length: a second derivation of every gradient, and the
// source of the intermediates that a chunk kernel's backward pass has.
//
// Notation of chunk_algebra.hpp; E_ij = e^{G_i - G_j}; tril keeps i >= j, strict i > j.
//   KDA   Z = beta (V - kd S), U = T Z
//         dU = Aqk^T dO + kr dS'     dZ = T^T dU      dL = -strict(dZ U^T)    dAkk = diag(beta) dL    dAqk = tril(dO U^T)
//         dV = beta dZ               dbeta_i = dZ_i . (V - kd S)_i + sum_j dL_ij Akk_ij
//         dqd = dO S^T   dkd = -(beta dZ) S^T   dkr = U dS'^T   dS = e^{G_C} dS' + qd^T dO - kd^T (beta dZ)
//   DPLR  Y = bd S + Abk V, P = T Y
//         dP = -Aqa^T dO - ar dS'    dY = T^T dP      dAba = -strict(dY P^T)  dAbk = strict(dY V^T)
//         dAqk = tril(dO V^T)        dAqa = -tril(dO P^T)                     dV = Aqk^T dO + kr dS' + Abk^T dY
//         dqd = dO S^T   dbd = dY S^T   dkr = V dS'^T   dar = -P dS'^T   dS = e^{G_C} dS' + qd^T dO + bd^T dY
//   Whatever carries e^{+G_i} adds x_i dx_i to dG_i, whatever carries e^{-G_j} subtracts it; what carries e^{G_C} adds to the
//   last row; dg is the reverse cumulative sum of dG. The diagonal of Aqk carries e^0 and contributes nothing.

#include "adjoint.hpp"
#include "chunk_algebra.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace kdacheck {

/// Derivatives inside one chunk. Matrices that a rule does not have are empty.
template <Number N> struct ChunkGradient {
  Matrix<N> dU, dZ;     ///< [C,V]; DPLR: dP, dY
  Matrix<N> dAkk, dAqk; ///< [C,C]; DPLR: dAkk is dAba
  Matrix<N> dAbk, dAqa; ///< [C,C], DPLR only
  Matrix<N> dq, dk, dg; ///< [C,K]
  Matrix<N> da, db;     ///< [C,K], DPLR only
  Matrix<N> dV;         ///< [C,V]
  std::vector<N> dbeta; ///< [C], KDA only
  Matrix<N> dS;         ///< [K,V] with respect to the state at the chunk's start
};

namespace chunk_detail {

/// Entries with i - j >= least of X Y^T, times sign; zero elsewhere.
template <Number N> Matrix<N> lower_product(const Matrix<N>& X, const Matrix<N>& Y, std::int64_t least, double sign) {
  return matrix_of<N>(X.rows, Y.rows, [&](std::int64_t i, std::int64_t j) {
    N sum(0.0);
    if (i - j >= least)
      for (std::int64_t c = 0; c < X.columns; ++c) sum = sum + X(i, c) * Y(j, c);
    return N(N(sign) * sum);
  });
}

/// What the scores A_ij = sum_c x_ic y_jc e^{X_ic - Y_jc} send back, strictly below the diagonal and on it apart: on it the
/// exponentials cancel where X = Y, so that part belongs to no G.
template <Number N> struct ScoreGradient {
  Matrix<N> x, y;                   ///< below the diagonal
  Matrix<N> diagonal_x, diagonal_y; ///< on it
};
template <Number N>
ScoreGradient<N> scores_reverse(const Matrix<N>& dA, const Matrix<N>& x, const Matrix<N>& X, const Matrix<N>& y, const Matrix<N>& Y) {
  using std::exp;
  const std::int64_t C = x.rows, K = x.columns;
  ScoreGradient<N> d{Matrix<N>(C, K), Matrix<N>(C, K), Matrix<N>(C, K), Matrix<N>(C, K)};
  for (std::int64_t i = 0; i < C; ++i)
    for (std::int64_t j = 0; j <= i; ++j)
      for (std::int64_t c = 0; c < K; ++c) {
        const N weight = dA(i, j) * exp(N(X(i, c) - Y(j, c)));
        N& to_x = i == j ? d.diagonal_x(i, c) : d.x(i, c);
        N& to_y = i == j ? d.diagonal_y(j, c) : d.y(j, c);
        to_x = to_x + weight * y(j, c);
        to_y = to_y + weight * x(i, c);
      }
  return d;
}

template <Number N> Matrix<N> elementwise(const Matrix<N>& A, const Matrix<N>& B) {
  return matrix_of<N>(A.rows, A.columns, [&](std::int64_t i, std::int64_t j) { return N(A(i, j) * B(i, j)); });
}

template <Number N> Matrix<N> reverse_cumulative_rows(Matrix<N> d) {
  for (std::int64_t i = d.rows - 2; i >= 0; --i)
    for (std::int64_t c = 0; c < d.columns; ++c) d(i, c) = d(i, c) + d(i + 1, c);
  return d;
}

} // namespace chunk_detail

/// Reverse mode of `chunk_of`: from dO [C,V] and dS' [K,V].
template <Number N>
ChunkGradient<N> chunk_reverse(Rule rule, const std::vector<Token<N>>& tokens, const N& scale, const Chunk<N>& chunk, const Matrix<N>& dO,
                               const Matrix<N>& d_end) {
  using namespace chunk_detail;
  using std::exp;
  const auto C = static_cast<std::int64_t>(tokens.size());
  const auto beta = [&](std::int64_t i) { return tokens[static_cast<std::size_t>(i)].beta; };
  const Matrix<N> k = rows_of(tokens, &Token<N>::k), v = rows_of(tokens, &Token<N>::v), g = rows_of(tokens, &Token<N>::log_decay);
  const Matrix<N> q = rows_scaled(rows_of(tokens, &Token<N>::q), [&](std::int64_t) { return scale; });
  const Matrix<N>&G = chunk.G, &S = chunk.start;
  const std::int64_t K = G.columns;
  const Matrix<N> to_end = matrix_of<N>(C, K, [&](std::int64_t i, std::int64_t c) { return N(G(C - 1, c) - G(i, c)); });
  const Matrix<N> qd = scaled_by_exp(q, G), kr = scaled_by_exp(k, to_end);
  const Matrix<N> kept = rows_scaled(d_end, [&](std::int64_t c) { return N(exp(G(C - 1, c))); }); // e^{G_C} dS'
  const Matrix<N> q_read = scaled_by_exp(dO * transposed(S), G);

  ChunkGradient<N> d;
  Matrix<N> k_up(C, K), k_down(C, K), k_level(C, K); // dk through e^{+G}, e^{-G}, and neither
  Matrix<N> at_end(C, K);                            // what came through e^{G_C - G}, times its vector
  Matrix<N> dG_before(C, K);                         // to G_{i-1} of row i
  Matrix<N> q_up, q_level, dG;
  if (rule == Rule::kda) {
    const Matrix<N> kd = scaled_by_exp(k, G), residual = v - kd * S;
    d.dU = transposed(chunk.Aqk) * dO + kr * d_end;
    d.dZ = transposed(chunk.T) * d.dU;
    const Matrix<N> dL = lower_product(d.dZ, chunk.U, 1, -1.0);
    d.dAkk = rows_scaled(dL, beta);
    d.dAqk = lower_product(dO, chunk.U, 0, 1.0);
    d.dV = rows_scaled(d.dZ, beta);
    for (std::int64_t i = 0; i < C; ++i) {
      N sum(0.0);
      for (std::int64_t j = 0; j < v.columns; ++j) sum = sum + d.dZ(i, j) * residual(i, j);
      for (std::int64_t j = 0; j < i; ++j) sum = sum + dL(i, j) * chunk.Akk(i, j);
      d.dbeta.push_back(sum);
    }
    d.dS = kept + transposed(qd) * dO - transposed(kd) * d.dV;
    const ScoreGradient<N> keys = scores_reverse(d.dAkk, k, G, k, G), reads = scores_reverse(d.dAqk, q, G, k, G);
    const Matrix<N> from_end = scaled_by_exp(chunk.U * transposed(d_end), to_end);
    k_up = keys.x - scaled_by_exp(d.dV * transposed(S), G);
    k_down = keys.y + reads.y + from_end;
    k_level = reads.diagonal_y;
    at_end = elementwise(k, from_end);
    q_up = q_read + reads.x;
    q_level = reads.diagonal_x;
    dG = elementwise(q, q_up) + elementwise(k, k_up - k_down);
  } else {
    const Matrix<N> a = rows_of(tokens, &Token<N>::a), b = rows_of(tokens, &Token<N>::b), before = G - g;
    const Matrix<N> bd = scaled_by_exp(b, before), ar = scaled_by_exp(a, to_end);
    d.dU = Matrix<N>(C, v.columns) - transposed(chunk.Aqa) * dO - ar * d_end;
    d.dZ = transposed(chunk.T) * d.dU;
    d.dAkk = lower_product(d.dZ, chunk.U, 1, -1.0);
    d.dAbk = lower_product(d.dZ, v, 1, 1.0);
    d.dAqk = lower_product(dO, v, 0, 1.0);
    d.dAqa = lower_product(dO, chunk.U, 0, -1.0);
    d.dV = transposed(chunk.Aqk) * dO + kr * d_end + transposed(chunk.Abk) * d.dZ;
    d.dS = kept + transposed(qd) * dO + transposed(bd) * d.dZ;
    const ScoreGradient<N> read_k = scores_reverse(d.dAqk, q, G, k, G), read_a = scores_reverse(d.dAqa, q, G, a, G);
    const ScoreGradient<N> taken_k = scores_reverse(d.dAbk, b, before, k, G), taken_a = scores_reverse(d.dAkk, b, before, a, G);
    const Matrix<N> k_end = scaled_by_exp(v * transposed(d_end), to_end);
    const Matrix<N> a_end = Matrix<N>(C, K) - scaled_by_exp(chunk.U * transposed(d_end), to_end);
    k_down = read_k.y + taken_k.y + k_end;
    k_level = read_k.diagonal_y;
    const Matrix<N> a_down = read_a.y + taken_a.y + a_end;
    d.da = a_down + read_a.diagonal_y;
    d.db = scaled_by_exp(d.dZ * transposed(S), before) + taken_k.x + taken_a.x;
    at_end = elementwise(k, k_end) + elementwise(a, a_end);
    q_up = q_read + read_k.x + read_a.x;
    q_level = read_k.diagonal_x + read_a.diagonal_x;
    dG = elementwise(q, q_up) - elementwise(k, k_down) - elementwise(a, a_down);
    dG_before = elementwise(b, d.db);
  }
  for (std::int64_t c = 0; c < K; ++c) {
    for (std::int64_t i = 0; i < C; ++i) dG(C - 1, c) = dG(C - 1, c) + at_end(i, c);
    for (std::int64_t j = 0; j < v.columns; ++j) dG(C - 1, c) = dG(C - 1, c) + S(c, j) * kept(c, j);
    for (std::int64_t i = 1; i < C; ++i) dG(i - 1, c) = dG(i - 1, c) + dG_before(i, c);
  }
  d.dg = reverse_cumulative_rows(dG);
  d.dk = k_up + k_down + k_level;
  d.dq = rows_scaled(q_up + q_level, [&](std::int64_t) { return scale; });
  return d;
}

namespace chunk_detail {

template <Number N> std::vector<N> row_of(const Matrix<N>& A, std::int64_t i) {
  return {A.element.begin() + i * A.columns, A.element.begin() + (i + 1) * A.columns};
}

} // namespace chunk_detail

/// Gradients of <d_o, o> + <d_final_state, S_final> in chunks of C tokens. Keeps every chunk of one head.
template <Number N> Gradients<N> gradients_by_chunks(const Problem& problem, const Reads<N> auto& read, std::int64_t C) {
  using chunk_detail::row_of;
  const Shape& shape = problem.shape;
  const N scale(static_cast<double>(problem.options.scale));
  Gradients<N> result = zero_gradients<N>(problem);
  for (const Sequence& sequence : sequences(problem))
    for (std::int64_t head = 0; head < shape.HV; ++head) {
      std::vector<std::vector<Token<N>>> tokens;
      std::vector<Chunk<N>> chunks;
      Matrix<N> S(shape.K, shape.V);
      S.element = starting_state<N>(problem, read, sequence.index, head).element;
      for (std::int64_t first = 0; first < sequence.length; first += C) {
        tokens.emplace_back();
        for (std::int64_t t = first; t < std::min(first + C, sequence.length); ++t)
          tokens.back().push_back(effective_token<N>(problem, read, sequence.first + t, head));
        chunks.push_back(chunk_of(problem.options.rule, tokens.back(), scale, S));
        S = chunks.back().end;
      }
      const std::int64_t state = sequence.index * shape.HV + head;
      Matrix<N> dS(shape.K, shape.V);
      dS.element = adjoint_detail::cotangent<N>(problem.d_final_state, state * shape.K * shape.V, shape.K * shape.V);
      for (std::size_t n = chunks.size(); n-- > 0;) {
        const std::int64_t first = sequence.first + static_cast<std::int64_t>(n) * C, length = chunks[n].O.rows;
        Matrix<N> dO(0, shape.V);
        for (std::int64_t i = 0; i < length; ++i, ++dO.rows) {
          const std::vector<N> row = adjoint_detail::cotangent<N>(problem.d_o, ((first + i) * shape.HV + head) * shape.V, shape.V);
          dO.element.insert(dO.element.end(), row.begin(), row.end());
        }
        const ChunkGradient<N> d = chunk_reverse(problem.options.rule, tokens[n], scale, chunks[n], dO, dS);
        for (std::int64_t i = 0; i < length; ++i) {
          TokenGradient<N> token{
              .q = row_of(d.dq, i), .k = row_of(d.dk, i), .v = row_of(d.dV, i), .log_decay = row_of(d.dg, i), .a = {}, .b = {}};
          if (problem.options.rule == Rule::kda)
            token.beta = d.dbeta[static_cast<std::size_t>(i)];
          else
            token.a = row_of(d.da, i), token.b = row_of(d.db, i);
          add_to_inputs<N>(problem, read, first + i, head, token, result);
        }
        dS = d.dS;
      }
      if (!problem.initial_state.empty()) effective_detail::add_row<N>(result[Input::initial_state], state, dS.element);
    }
  return result;
}

template <Number N> Gradients<N> gradients_by_chunks(const Problem& problem, std::int64_t C) {
  return gradients_by_chunks<N>(problem, Exactly<N>{problem}, C);
}

} // namespace kdacheck
