// What proved_chunk_adjoint.cpp, 5 and 7, says of dq, dk and dg.

#include "proved_chunk_adjoint.hpp"

#include "../cases/portable_math.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace kdacheck {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

} // namespace

void ChunkAdjoint::bound_rows() {
  for (Side* side : {&row_q_, &row_k_, &column_}) side->resize(n_, K_);
  const BoundMatrix state = transposed(state_, K_), state_size = sizes(state), lambda = transposed(lambda_, K_),
                    lambda_size = sizes(lambda);
  const double state_errors = std::accumulate(state_error_.begin(), state_error_.end(), 0.0);
  const double lambda_errors = std::accumulate(lambda_error_.begin(), lambda_error_.end(), 0.0);
  BoundMatrix exact, size, error;
  const auto add = [&](Side& side, std::int64_t i, std::int64_t c, double decay, double log_error, double sign, double of_factors,
                       double sums, double otherwise = 0) {
    const double x = decay * exact[i][c], own = size[i][c] + of_factors;
    const double e = std::max(sane(otherwise), sane(decay * (decay_slack(log_error) * own + error[i][c] + of_factors) + lost(own + sums)));
    side.exact[i][c] += sign * x, side.error[i][c] += e, side.size[i][c] += std::abs(x) + e;
  };
  const auto from_start = [&](Side& side, double sign, const BoundMatrix& left_size, const std::vector<double>& of_state,
                              const std::vector<double>& left_sum, bool erases) {
    for (std::int64_t i = 0; i < n_; ++i) {
      const double of_factors = weighted(left_size[i], of_state);
      double decay = 1;
      for (std::int64_t c = 0; c < K_; ++c) {
        decay = portable::exp(G_[i][c]);
        const double log_error = D_[i][c] + ProvedUnits::argument * std::abs(G_[i][c]);
        add(side, i, c, decay, log_error, sign, of_factors, left_sum[at(i)] + state_row_sum_[at(c)] + state_errors,
            erases ? error_of_erasing_row(i, c, decay, log_error) : 0);
      }
    }
  };
  product(d_o_, state, n_, V_, exact), product(d_o_size_, state_size, n_, V_, size), error.resize(n_, K_);
  from_start(row_q_, 1, d_o_size_, state_error_, d_o_sum_, false);
  product(W_, state, n_, V_, exact), product(W_size_, state_size, n_, V_, size), product(W_error_, state_size, n_, V_, error);
  from_start(row_k_, -1, W_size_, state_error_, W_sum_, wy_);
  product(U_, lambda, n_, V_, exact), product(U_size_, lambda_size, n_, V_, size), product(U_error_, lambda_size, n_, V_, error);
  for (std::int64_t i = 0; i < n_; ++i) {
    const double of_factors = weighted(U_size_[i], lambda_error_);
    for (std::int64_t c = 0; c < K_; ++c) {
      const double rest = G_[n_ - 1][c] - G_[i][c];
      add(column_, i, c, portable::exp(rest), D_[n_ - 1][c] + D_[i][c] + ProvedUnits::argument * std::abs(rest), 1, of_factors,
          U_sum_[at(i)] + lambda_row_sum_[at(c)] + lambda_errors);
    }
  }
  end_ = column_;
  add_scores();
}

void ChunkAdjoint::add_scores() {
  const double a = units_.score.unit, fixed = 2 * (portable::log1p(units_.exponential) + portable::log1p(f) + portable::log1p(a) + norm_) +
                                              portable::log1p(units_.gamma(n_ + 1)) + 4 * f;
  BoundMatrix decays;
  decays.resize(n_, K_);
  std::vector<double> theta(at(K_));
  for (std::int64_t i = 0; i < n_; ++i) {
    const double* alpha = alpha_[i];
    const double* k = head_.k.data() + (first_ + i) * K_;
    const double* q = head_.q.data() + (first_ + i) * K_;
    for (std::int64_t c = 0; c < K_; ++c) theta[at(c)] = grown(pair_log_[i][c] + fixed);
    // what a normalised q or k loses below its format's smallest number
    const double of_norm = small_flush() * (1 + std::abs(head_.scale)) * (1 + *std::ranges::max_element(theta));
    for (std::int64_t j = 0; j < i; ++j)
      for (std::int64_t c = 0; c < K_; ++c) decays[j][c] *= alpha[c];
    std::fill(decays[i], decays[i] + K_, 1.0);
    const double growth = growth_[at(i)], tiny = 0x1p-126 * growth * 4 * static_cast<double>(n_ + 4);
    double* __restrict q_exact = row_q_.exact[i];
    double* __restrict q_error = row_q_.error[i];
    double* __restrict q_size = row_q_.size[i];
    double* __restrict k_exact = row_k_.exact[i];
    double* __restrict k_error = row_k_.error[i];
    double* __restrict k_size = row_k_.size[i];
    for (std::int64_t j = 0; j <= i; ++j) {
      const double P = P_[i][j], P_error = P_error_[i][j], P_size = std::abs(P) + P_error;
      const double Q = Q_[i][j], Q_error = Q_error_[i][j], Q_size = std::abs(Q) + Q_error;
      const double rows = key_sum_[at(i)] + key_sum_[at(j)] + query_sum_[at(i)];
      const double split = growth * (rows + static_cast<double>(K_)) <= units_.score.limit ? 4 * units_.score.flush * growth : infinity;
      const double flushed =
          split * (1 + P_size + Q_size) + tiny * (1 + P_size + Q_size + rows) + (of_norm > 0 ? of_norm * (P_size + Q_size) : 0);
      const double* __restrict of_j = head_.k.data() + (first_ + j) * K_;
      double* __restrict c_exact = column_.exact[j];
      double* __restrict c_error = column_.error[j];
      double* __restrict c_size = column_.size[j];
      for (std::int64_t c = 0; c < K_; ++c) {
        const double decay = decays[j][c], x = of_j[c] * decay, size = std::abs(x), t = theta[at(c)];
        const double scaled = head_.scale * q[c], query = std::abs(scaled), key = std::abs(k[c]);
        q_exact[c] += P * x, q_error[c] += (t * P_size + P_error) * size + flushed, q_size[c] += (1 + t) * P_size * size;
        k_exact[c] += Q * x, k_error[c] += (t * Q_size + Q_error) * size + flushed, k_size[c] += (1 + t) * Q_size * size;
        const double both = P_size * query + Q_size * key;
        c_exact[c] += (P * scaled + Q * k[c]) * decay, c_size[c] += (1 + t) * both * decay;
        c_error[c] += (t * both + P_error * query + Q_error * key) * decay + flushed;
      }
    }
  }
  const double added = units_.gamma(n_ + 6); // to what comes from the state, one after the other
  for (Side* side : {&row_q_, &row_k_, &column_})
    for (std::size_t entry = 0; entry < side->error.data.size(); ++entry) side->error.data[entry] += added * side->size.data[entry];
}

void ChunkAdjoint::write_rows(AdjointBound& out) {
  const double of_sum = units_.gamma(5 * n_ + 8);
  const double over_V = (1 + units_.gamma(V_ + 1)) * (1 + units_.operand.unit) * (1 + units_.operand.unit) * (1 + 2.1 * f) - 1;
  const double errors =
      std::accumulate(state_error_.begin(), state_error_.end(), 0.0) + std::accumulate(lambda_error_.begin(), lambda_error_.end(), 0.0);
  const auto raise = [](double& bound, double error) { bound = std::max(bound, sane(error * ProvedUnits::up)); };
  for (std::int64_t c = 0; c < K_; ++c) {
    double kept = 0, kept_size = 0, kept_error = 0;
    const double flushed = lost(state_row_sum_[at(c)] + lambda_row_sum_[at(c)] + errors);
    for (std::int64_t v = 0; v < V_; ++v) {
      const double S = state_size_[c][v], L = lambda_size_[c][v], e = state_error_[at(v)], epsilon = lambda_error_[at(v)];
      kept += state_[c][v] * lambda_[c][v], kept_size += (S + e) * (L + epsilon);
      kept_error += S * epsilon + e * L + e * epsilon;
    }
    double g = whole_[at(c)] * kept,
           g_error = whole_[at(c)] * kept_error + (whole_[at(c)] * over_V + whole_slack_[at(c)] * (1 + over_V)) * kept_size;
    double g_size = (whole_[at(c)] + whole_slack_[at(c)]) * kept_size;
    const auto add = [&](double by, double row, const Side& side, std::int64_t i, double sign) {
      const double size = std::abs(by) * side.size[i][c], factor = grown(norm_ + 3 * f + small(row));
      g += sign * by * side.exact[i][c];
      g_error += std::abs(by) * side.error[i][c] * (1 + factor) + factor * size, g_size += size * (1 + factor);
    };
    for (std::int64_t i = 0; i < n_; ++i) add(head_.k[at((first_ + i) * K_ + c)], head_.k[at((first_ + i) * K_ + c)], end_, i, 1);
    for (std::int64_t i = n_ - 1; i >= 0; --i) {
      const std::size_t entry = at((first_ + i) * K_ + c);
      const double q = head_.scale * head_.q[entry], k = head_.k[entry], scale = std::abs(head_.scale);
      add(q, head_.q[entry], row_q_, i, 1), add(k, k, row_k_, i, 1), add(k, k, column_, i, -1);
      out.g_size[entry] = std::abs(g);
      raise(out.g[entry], g_error + of_sum * g_size + flushed);
      out.q_size[entry] = scale * std::abs(row_q_.exact[i][c]);
      raise(out.q[entry], scale * (row_q_.error[i][c] + 4 * f * row_q_.size[i][c]) + lost(1));
      out.k_size[entry] = std::abs(row_k_.exact[i][c] + column_.exact[i][c]);
      raise(out.k[entry], row_k_.error[i][c] + column_.error[i][c] + 4 * f * (row_k_.size[i][c] + column_.size[i][c]) + lost(1));
    }
  }
}

} // namespace kdacheck
