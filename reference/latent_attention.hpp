#pragma once
// Multi-head latent attention without position encoding of one sequence as mathematics, in any number type.
//
//   c = RMSNorm(x W_down)   s = x W_s   q_h = (x W_q)_h   k_h = [(c W_up)_h,K, s]   v_h = (c W_up)_h,V
//   o_t = sum_{j <= past + t} softmax_j(scale q_t . k_j) v_j                                                y = o W_o
// Sources: DeepSeek-V2 (arXiv 2405.04434), section 2.1; Kimi Linear technical report (arXiv 2510.26692), section 4.

#include "gated_norm.hpp"
#include "matrix.hpp"

#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

namespace kdacheck {

/// Sizes; scale and epsilon are exactly these numbers in every arithmetic.
struct LatentForm {
  std::int64_t H = 1, K = 1, K_shared = 0, V = 1, rank = 1;
  double scale = 1.0, norm_epsilon = 1e-5;
};

/// Parameters, or their gradients. Without shared channels k_shared has no columns.
template <Number N> struct LatentTensors {
  Matrix<N> q_proj, kv_down;
  std::vector<N> kv_norm;
  Matrix<N> kv_up, k_shared, o_proj;
};

/// w_j x_j / sqrt(mean x^2 + epsilon), row by row.
template <Number N> Matrix<N> rms_normalised(const Matrix<N>& x, const std::vector<N>& weight, const N& epsilon) {
  Matrix<N> y(x.rows, x.columns);
  for (std::int64_t t = 0; t < x.rows; ++t) {
    const N r = inverse_rms(
        std::span<const N>(x.element).subspan(static_cast<std::size_t>(t * x.columns), static_cast<std::size_t>(x.columns)), epsilon);
    for (std::int64_t j = 0; j < x.columns; ++j) y(t, j) = weight[static_cast<std::size_t>(j)] * (x(t, j) * r);
  }
  return y;
}

/// Everything on the way from x to y; M = past + T.
template <Number N> struct LatentRun {
  Matrix<N> q, down;                    ///< [T,H (K + K_shared)], [T,rank]
  Matrix<N> end;                        ///< [M,rank + K_shared]: the cache behind the call
  Matrix<N> latent, kv;                 ///< [M,rank], [M,H (K + V)]
  std::vector<Matrix<N>> keys, weights; ///< of each head: [M,K + K_shared], [T,M]
  Matrix<N> o, y;                       ///< [T,H V], [T,D]
};

/// x [T,D] behind a cache [past,rank + K_shared]. absorbed: q_t . (c_j W) as (q_t W^T) . c_j and sum_j p_tj (c_j W) as
/// (sum_j p_tj c_j) W, which is the same in exact arithmetic.
template <Number N>
LatentRun<N> run_latent(const LatentForm& f, const LatentTensors<N>& p, const Matrix<N>& x, const Matrix<N>& start, bool absorbed = false) {
  using std::exp;
  const std::int64_t T = x.rows, past = start.rows, M = past + T, wide = f.K + f.K_shared;
  LatentRun<N> run;
  run.q = x * p.q_proj;
  run.down = x * p.kv_down;
  const Matrix<N> fresh = rms_normalised(run.down, p.kv_norm, N(f.norm_epsilon)), shared = x * p.k_shared;
  run.end = matrix_of<N>(M, f.rank + f.K_shared, [&](std::int64_t i, std::int64_t j) {
    return i < past ? start(i, j) : j < f.rank ? fresh(i - past, j) : shared(i - past, j - f.rank);
  });
  run.latent = matrix_of<N>(M, f.rank, [&](std::int64_t i, std::int64_t j) { return run.end(i, j); });
  run.kv = run.latent * p.kv_up;
  run.o = Matrix<N>(T, f.H * f.V);
  for (std::int64_t h = 0; h < f.H; ++h) {
    const std::int64_t first = h * (f.K + f.V);
    const Matrix<N> keys = matrix_of<N>(
        M, wide, [&](std::int64_t i, std::int64_t j) { return j < f.K ? run.kv(i, first + j) : run.end(i, f.rank + j - f.K); });
    Matrix<N> weights(T, M);
    const Matrix<N> own = matrix_of<N>(T, f.K, [&](std::int64_t t, std::int64_t j) { return run.q(t, h * wide + j); });
    const Matrix<N> key_up = matrix_of<N>(f.rank, f.K, [&](std::int64_t i, std::int64_t j) { return p.kv_up(i, first + j); });
    const Matrix<N> value_up = matrix_of<N>(f.rank, f.V, [&](std::int64_t i, std::int64_t j) { return p.kv_up(i, first + f.K + j); });
    const Matrix<N> in_latent = absorbed ? own * transposed(key_up) : Matrix<N>();
    for (std::int64_t t = 0; t < T; ++t) {
      std::vector<N> scores;
      for (std::int64_t i = 0; i <= past + t; ++i) {
        N sum(0.0);
        for (std::int64_t j = 0; j < f.rank && absorbed; ++j) sum = sum + in_latent(t, j) * run.latent(i, j);
        for (std::int64_t j = absorbed ? f.K : 0; j < wide; ++j) sum = sum + run.q(t, h * wide + j) * keys(i, j);
        scores.push_back(N(f.scale) * sum);
      }
      N top = scores[0];
      for (const N& score : scores)
        if (top < score) top = score;
      N total(0.0);
      for (std::int64_t i = 0; i <= past + t; ++i) total = total + (weights(t, i) = exp(N(scores[static_cast<std::size_t>(i)] - top)));
      for (std::int64_t i = 0; i <= past + t; ++i) weights(t, i) = weights(t, i) / total;
      Matrix<N> mean(1, f.rank);
      for (std::int64_t j = 0; j < f.rank && absorbed; ++j)
        for (std::int64_t i = 0; i <= past + t; ++i) mean(0, j) = mean(0, j) + weights(t, i) * run.latent(i, j);
      const Matrix<N> outside = absorbed ? mean * value_up : Matrix<N>();
      for (std::int64_t j = 0; j < f.V; ++j) {
        if (absorbed) {
          run.o(t, h * f.V + j) = outside(0, j);
          continue;
        }
        N sum(0.0);
        for (std::int64_t i = 0; i <= past + t; ++i) sum = sum + weights(t, i) * run.kv(i, first + f.K + j);
        run.o(t, h * f.V + j) = sum;
      }
    }
    run.keys.push_back(keys), run.weights.push_back(std::move(weights));
  }
  run.y = run.o * p.o_proj;
  return run;
}

} // namespace kdacheck
