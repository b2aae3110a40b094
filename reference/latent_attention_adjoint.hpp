#pragma once
// Reverse mode of latent attention of one sequence, in any number type: gradients of <d_y, y> + <d_end, end>.

#include "latent_attention.hpp"

#include <algorithm>

namespace kdacheck {

/// All zero, in the shapes of p.
template <Number N> LatentTensors<N> zero_tensors(const LatentTensors<N>& p) {
  LatentTensors<N> d = p;
  for (auto* matrix : {&d.q_proj, &d.kv_down, &d.kv_up, &d.k_shared, &d.o_proj})
    std::fill(matrix->element.begin(), matrix->element.end(), N(0.0));
  std::fill(d.kv_norm.begin(), d.kv_norm.end(), N(0.0));
  return d;
}

/// The gradient of x; that of the weight is added. d n_j = d y_j w_j,  d x = r (d n - n mean(n . d n))
template <Number N>
Matrix<N> rms_normalised_reverse(const Matrix<N>& x, const std::vector<N>& weight, const N& epsilon, const Matrix<N>& d_y,
                                 std::vector<N>& d_weight) {
  Matrix<N> d_x(x.rows, x.columns);
  for (std::int64_t t = 0; t < x.rows; ++t) {
    const N r = inverse_rms(
        std::span<const N>(x.element).subspan(static_cast<std::size_t>(t * x.columns), static_cast<std::size_t>(x.columns)), epsilon);
    N along(0.0);
    for (std::int64_t j = 0; j < x.columns; ++j) {
      const auto at = static_cast<std::size_t>(j);
      const N n = x(t, j) * r;
      along = along + n * (d_y(t, j) * weight[at]);
      d_weight[at] = d_weight[at] + d_y(t, j) * n;
    }
    const N mean = along / N(static_cast<double>(x.columns));
    for (std::int64_t j = 0; j < x.columns; ++j) d_x(t, j) = r * (d_y(t, j) * weight[static_cast<std::size_t>(j)] - x(t, j) * r * mean);
  }
  return d_x;
}

template <Number N> struct LatentReverse {
  Matrix<N> x, start;
};

/// Adds to `d` what this sequence contributes to the parameters' gradients; run is `run_latent` of the same arguments.
template <Number N>
LatentReverse<N> latent_reverse(const LatentForm& f, const LatentTensors<N>& p, const Matrix<N>& x, const Matrix<N>& start,
                                const LatentRun<N>& run, const Matrix<N>& d_y, const Matrix<N>& d_end, LatentTensors<N>& d) {
  const std::int64_t T = x.rows, past = start.rows, M = past + T, wide = f.K + f.K_shared;
  d.o_proj = d.o_proj + transposed(run.o) * d_y;
  const Matrix<N> d_o = d_y * transposed(p.o_proj);
  Matrix<N> d_q(T, f.H * wide), d_kv(M, f.H * (f.K + f.V)), d_rows = d_end;
  for (std::int64_t h = 0; h < f.H; ++h) {
    const std::int64_t first = h * (f.K + f.V);
    const Matrix<N>& P = run.weights[static_cast<std::size_t>(h)];
    const Matrix<N>& keys = run.keys[static_cast<std::size_t>(h)];
    for (std::int64_t t = 0; t < T; ++t) {
      std::vector<N> d_p;
      N mean(0.0);
      for (std::int64_t i = 0; i <= past + t; ++i) {
        N sum(0.0);
        for (std::int64_t j = 0; j < f.V; ++j) {
          sum = sum + d_o(t, h * f.V + j) * run.kv(i, first + f.K + j);
          d_kv(i, first + f.K + j) = d_kv(i, first + f.K + j) + P(t, i) * d_o(t, h * f.V + j);
        }
        d_p.push_back(sum);
        mean = mean + P(t, i) * sum;
      }
      for (std::int64_t i = 0; i <= past + t; ++i) {
        const N d_score = P(t, i) * (d_p[static_cast<std::size_t>(i)] - mean) * N(f.scale);
        for (std::int64_t j = 0; j < wide; ++j) {
          d_q(t, h * wide + j) = d_q(t, h * wide + j) + d_score * keys(i, j);
          N& d_key = j < f.K ? d_kv(i, first + j) : d_rows(i, f.rank + j - f.K);
          d_key = d_key + d_score * run.q(t, h * wide + j);
        }
      }
    }
  }
  d.kv_up = d.kv_up + transposed(run.latent) * d_kv;
  const Matrix<N> d_latent = d_kv * transposed(p.kv_up);
  for (std::int64_t i = 0; i < M; ++i)
    for (std::int64_t j = 0; j < f.rank; ++j) d_rows(i, j) = d_rows(i, j) + d_latent(i, j);

  const Matrix<N> d_fresh = matrix_of<N>(T, f.rank, [&](std::int64_t t, std::int64_t j) { return d_rows(past + t, j); });
  const Matrix<N> d_shared = matrix_of<N>(T, f.K_shared, [&](std::int64_t t, std::int64_t j) { return d_rows(past + t, f.rank + j); });
  const Matrix<N> d_down = rms_normalised_reverse(run.down, p.kv_norm, N(f.norm_epsilon), d_fresh, d.kv_norm);
  d.q_proj = d.q_proj + transposed(x) * d_q;
  d.kv_down = d.kv_down + transposed(x) * d_down;
  d.k_shared = d.k_shared + transposed(x) * d_shared;
  return {d_q * transposed(p.q_proj) + d_down * transposed(p.kv_down) + d_shared * transposed(p.k_shared),
          matrix_of<N>(past, d_rows.columns, [&](std::int64_t i, std::int64_t j) { return d_rows(i, j); })};
}

} // namespace kdacheck
