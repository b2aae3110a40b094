// What proved_general_adjoint.cpp says of dq, dk, da, db and dg.

#include "proved_general_adjoint.hpp"

#include "../cases/portable_math.hpp"

namespace kdacheck {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

} // namespace

void GeneralAdjoint::bound_rows() {
  const BoundMatrix state = transposed(state_, K_), state_size = sizes(state), lambda = transposed(lambda_, K_),
                    lambda_size = sizes(lambda);
  BoundMatrix none, exact, size, error;
  none.resize(n_, V_);
  const auto through = [&](Side& side, double sign, const BoundMatrix& left, const BoundMatrix& left_size, const BoundMatrix& left_error,
                           const std::vector<double>& sums, bool from_start, const std::vector<double>& right_error, auto&& decay_of,
                           auto&& otherwise) {
    side.resize(n_, K_);
    product(left, from_start ? state : lambda, n_, V_, exact);
    product(left_size, from_start ? state_size : lambda_size, n_, V_, size);
    product(left_error, from_start ? state_size : lambda_size, n_, V_, error);
    const double errors = std::accumulate(right_error.begin(), right_error.end(), 0.0);
    for (std::int64_t i = 0; i < n_; ++i) {
      const double of_factors = weighted(left_size[i], right_error);
      for (std::int64_t c = 0; c < K_; ++c) {
        const auto [log_decay, log_error] = decay_of(i, c);
        const double decay = portable::exp(log_decay), x = decay * exact[i][c], own = size[i][c] + of_factors;
        const double slack = decay_slack(log_error + ProvedUnits::argument * std::abs(log_decay));
        const double e = std::max(sane(decay * (slack * own + error[i][c] + of_factors) +
                                       lost(own + sums[at(i)] + errors + (from_start ? state_row_sum_ : lambda_row_sum_)[at(c)])),
                                  sane(otherwise(i, c, decay, slack)));
        side.exact[i][c] = sign * x, side.error[i][c] = e, side.size[i][c] = std::abs(x) + e;
      }
    }
  };
  const auto nothing = [](std::int64_t, std::int64_t, double, double) { return 0.0; };
  const auto inclusive = [&](std::int64_t i, std::int64_t c) { return std::pair{G_[i][c], D_[i][c]}; };
  const auto exclusive = [&](std::int64_t i, std::int64_t c) { return i > 0 ? inclusive(i - 1, c) : std::pair{0.0, 0.0}; };
  const auto to_end = [&](std::int64_t i, std::int64_t c) { return std::pair{G_[n_ - 1][c] - G_[i][c], D_[n_ - 1][c] + D_[i][c]}; };
  through(row_q_, 1, d_o_, d_o_size_, none, d_o_sum_, true, state_error_, inclusive, nothing);
  through(row_b_, 1, Y_, Y_size_, Y_error_, Y_sum_, true, state_error_, exclusive,
          [&](std::int64_t i, std::int64_t c, double decay, double slack) {
            if (!wy_) return 0.0;
            const double own = read_cotangent_error_[i][c], all = std::abs(read_cotangent_[i][c]) + own;
            return decay * (slack * all + own) + lost(all);
          });
  through(column_a_, -1, memory_, w_size_, w_error_, w_sum_, false, lambda_error_, to_end, nothing);
  through(column_k_, 1, v_, v_size_, none, v_sum_, false, lambda_error_, to_end, nothing);
  end_a_ = column_a_, end_k_ = column_k_;
  add_scores();
}

void GeneralAdjoint::add_scores() {
  const double fixed = 2 * (portable::log1p(units_.exponential) + portable::log1p(f) + portable::log1p(units_.score.unit)) +
                       portable::log1p(units_.gamma(2 * n_ + 1)) + 4 * f + of_columns_;
  BoundMatrix decays;
  decays.resize(n_, K_);
  std::vector<double> of_b(at(K_)), of_q(at(K_));
  for (std::int64_t i = 0; i < n_; ++i) {
    const double growth = growth_[at(i)], tiny = 0x1p-126 * growth * 4 * static_cast<double>(n_ + 4);
    for (std::int64_t c = 0; c < K_; ++c)
      of_b[at(c)] = grown(pair_log_[i][c] + fixed + b_.error[i][c]), of_q[at(c)] = grown(pair_log_[i][c] + fixed + q_.error[i][c]);
    const double most = 1 + std::max(*std::ranges::max_element(of_b), *std::ranges::max_element(of_q));
    // a row of b or q against the columns a and k
    const auto pairs = [&](const double* row_value, const std::vector<double>& theta, Side& row, const Cotangent& with_a,
                           const Cotangent& with_k, std::int64_t j) {
      const double A = with_a.exact[i][j], A_error = with_a.error[i][j], A_size = std::abs(A) + A_error;
      const double B = with_k.exact[i][j], B_error = with_k.error[i][j], B_size = std::abs(B) + B_error;
      const double rows = sum_[at(i)] + sum_[at(j)], size = 1 + A_size + B_size;
      const double split = growth * (rows + static_cast<double>(K_)) <= units_.score.limit ? 4 * units_.score.flush * growth : infinity;
      const double of_norm = (small_flush() * (1 + std::abs(head_.scale)) + small_column(j)) * most;
      const double flushed = split * size + tiny * (size + rows) + (of_norm > 0 ? of_norm * (A_size + B_size) : 0);
      for (std::int64_t c = 0; c < K_; ++c) {
        const double decay = decays[j][c], t = theta[at(c)], x = row_value[c] * decay, x_size = std::abs(x);
        const double a = a_.value[j][c] * decay, k = k_.value[j][c] * decay, a_size = std::abs(a), k_size = std::abs(k);
        row.exact[i][c] += A * a + B * k;
        row.error[i][c] += (t * A_size + A_error) * a_size + (t * B_size + B_error) * k_size + flushed;
        row.size[i][c] += (1 + t) * (A_size * a_size + B_size * k_size);
        column_a_.exact[j][c] += A * x, column_k_.exact[j][c] += B * x;
        column_a_.error[j][c] += (t * A_size + A_error) * x_size + flushed,
            column_k_.error[j][c] += (t * B_size + B_error) * x_size + flushed;
        column_a_.size[j][c] += (1 + t) * A_size * x_size, column_k_.size[j][c] += (1 + t) * B_size * x_size;
      }
    };
    for (std::int64_t j = 0; j < i; ++j) pairs(b_.value[i], of_b, row_b_, of_L_, of_M_, j); // decays: e^{G-_i - G_j}
    for (std::int64_t j = 0; j < i; ++j)
      for (std::int64_t c = 0; c < K_; ++c) decays[j][c] *= alpha_[i][c];
    std::fill(decays[i], decays[i] + K_, 1.0);
    for (std::int64_t j = 0; j <= i; ++j) pairs(q_.value[i], of_q, row_q_, of_query_a_, of_query_key_, j);
  }
  const double added = units_.gamma(2 * n_ + 6); // to what comes from the state, one after the other
  for (Side* side : {&row_q_, &row_b_, &column_a_, &column_k_})
    for (std::size_t entry = 0; entry < side->error.data.size(); ++entry) side->error.data[entry] += added * side->size.data[entry];
}

void GeneralAdjoint::write_rows(AdjointBound& out) {
  const double of_sum = units_.gamma(7 * n_ + 10), of_keys = units_.gamma(K_ + 2);
  const double over_V = (1 + units_.gamma(V_ + 1)) * (1 + units_.operand.unit) * (1 + units_.operand.unit) * (1 + 2.1 * f) - 1;
  const double errors =
      std::accumulate(state_error_.begin(), state_error_.end(), 0.0) + std::accumulate(lambda_error_.begin(), lambda_error_.end(), 0.0);
  const auto raise = [](double& bound, double error) { bound = std::max(bound, sane(error * ProvedUnits::up)); };
  std::vector<double> strength(at(n_), 0.0), strength_error(strength); // KDA: dbeta
  for (std::int64_t c = 0; c < K_; ++c) {
    double kept = 0, kept_size = 0, kept_error = 0;
    const double flushed = lost(state_row_sum_[at(c)] + lambda_row_sum_[at(c)] + errors);
    for (std::int64_t v = 0; v < V_; ++v) {
      const double S = state_size_[c][v], L = lambda_size_[c][v], e = state_error_[at(v)], epsilon = lambda_error_[at(v)];
      kept += state_[c][v] * lambda_[c][v], kept_size += (S + e) * (L + epsilon);
      kept_error += S * epsilon + e * L + e * epsilon;
    }
    double g = whole_[at(c)] * kept, g_size = (whole_[at(c)] + whole_slack_[at(c)]) * kept_size,
           g_error = whole_[at(c)] * kept_error + (whole_[at(c)] * over_V + whole_slack_[at(c)] * (1 + over_V)) * kept_size;
    const auto add = [&](const Rows& rows, const Side& side, std::int64_t i, double sign) {
      const double by = rows.value[i][c], size = std::abs(by) * side.size[i][c],
                   factor = grown(norm_ + rows.error[i][c] + 3 * f + rows.small[i][c]);
      g += sign * by * side.exact[i][c];
      g_error += std::abs(by) * side.error[i][c] * (1 + factor) + factor * size, g_size += size * (1 + factor);
    };
    for (std::int64_t i = 0; i < n_; ++i) add(a_, end_a_, i, 1), add(k_, end_k_, i, 1);
    for (std::int64_t i = n_ - 1; i >= 0; --i) {
      const std::size_t entry = at((first_ + i) * K_ + c);
      const double scale = std::abs(head_.scale);
      add(q_, row_q_, i, 1), add(a_, column_a_, i, -1), add(k_, column_k_, i, -1);
      if (i + 1 < n_) add(b_, row_b_, i + 1, 1);
      out.q_size[entry] = scale * std::abs(row_q_.exact[i][c]);
      raise(out.q[entry], scale * (row_q_.error[i][c] + 4 * f * row_q_.size[i][c]) + lost(1));
      if (!head_.dplr) { // alpha's own share of dg is that of b at the token itself
        const double before = g, before_error = g_error, before_size = g_size;
        add(b_, row_b_, i, 1);
        out.g_size[entry] = std::abs(g);
        raise(out.g[entry], g_error + (of_sum + 2 * f) * g_size + flushed);
        g = before, g_error = before_error, g_size = before_size;
        write_key(i, c, strength[at(i)], strength_error[at(i)], out);
        continue;
      }
      out.g_size[entry] = std::abs(g);
      raise(out.g[entry], g_error + of_sum * g_size + flushed);
      out.k_size[entry] = std::abs(column_k_.exact[i][c]);
      raise(out.k[entry], column_k_.error[i][c] + 4 * f * column_k_.size[i][c] + lost(1));
      raise(out.a[entry], column_a_.error[i][c] + 4 * f * column_a_.size[i][c] + lost(1));
      raise(out.b[entry], row_b_.error[i][c] + 4 * f * row_b_.size[i][c] + lost(1));
    }
  }
  for (std::int64_t i = 0; i < n_ && !head_.dplr; ++i) {
    out.beta_size[at(first_ + i)] = std::abs(strength[at(i)]);
    raise(out.beta[at(first_ + i)], strength_error[at(i)] * (1 + of_keys) + lost(1));
  }
}

void GeneralAdjoint::write_key(std::int64_t i, std::int64_t c, double& strength, double& strength_error, AdjointBound& out) {
  const auto t = at(first_ + i), entry = at((first_ + i) * K_ + c);
  const double beta = head_.beta[t], of_beta = (1 + head_.beta_error[t]) * (1 + 4 * f) - 1, key = head_.k[entry], alpha = alpha_[i][c];
  const double of_alpha = grown(b_.error[i][c] + 4 * f), of_sum = grown(norm_ + 2 * f + k_.small[i][c]) + units_.gamma(K_ + 2);
  const double written = column_a_.exact[i][c] + column_k_.exact[i][c], written_error = column_a_.error[i][c] + column_k_.error[i][c],
               written_size = column_a_.size[i][c] + column_k_.size[i][c];
  const double b = row_b_.exact[i][c], b_error = row_b_.error[i][c], b_size = row_b_.size[i][c];
  double& bound = out.k[entry];
  out.k_size[entry] = std::abs(beta * written + alpha * b);
  bound = std::max(bound, sane((std::abs(beta) * (written_error + of_beta * (written_size + written_error)) +
                                alpha * (b_error + of_alpha * (b_size + b_error)) + lost(1)) *
                               ProvedUnits::up));
  strength += key * written;
  strength_error += std::abs(key) * (written_error + of_sum * (written_size + written_error));
}

} // namespace kdacheck
