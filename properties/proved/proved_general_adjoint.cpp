// Running error bound of the reverse mode of the general rule in chunks, in the notation of proved_general.cpp and as it is derived for KDA
// in proved_chunk_adjoint.cpp; w stands where U stands there, dw for dU, R for Z, Y for dZ, without a beta.
//
//   dw = -(Aqa^T dO + ar Lambda')     Y = T^T dw                  |Y~_i - Y_i| <= |a_i|_2 prod_{t>i} n_t eps, as Y_i = -a_i^T Lambda_i
//   dv = Aqk^T dO + kr Lambda' + M^T Y                            of Lambda': |k_i|_2 prod_{t>i} n_t eps, as dv_i = k_i^T Lambda_i
//   dL = -Y w^T     dM = Y v^T     dAqa = -dO w^T     dAqk = dO v^T    each rounded as an operand of the scores; or dL by way of dT = dw
//   R^T q as a row     e^G (dO S^T) + sum_{j<=i} (dAqk k_j + dAqa a_j) e^{G_i - G_j} b as a row     e^{G-} (Y S^T) + sum_{j<i} (dL a_j + dM
//   k_j) e^{G-_i - G_j} a, k           e^{G_C - G} (-w Lambda'^T), (v Lambda'^T), and the same scores as columns dg             the reverse
//   sum of q dq - a da - k dk, and b db one token before, on top of e^{G_C} S . Lambda' + a ar + k kr Lambda         e^{G_C} Lambda' + qd^T
//   dO + bd^T Y
// Order wy goes through W = T bd and T (M v): dW = dw S^T, dT = dw (M v)^T + dW bd^T, T^T dW = Y S^T, Lambda = ... + W^T dw.
//
// KDA through it has a = beta k, b = alpha k and the key beta k: with da and dk as above,
//   dk = beta (da + dk) + alpha db      dbeta = sum k (da + dk)      dg one term alpha k db more, of the token itself.
//
// Chunks in one pass and single tokens in the other: proved_starts.cpp. Not covered: sums in fp16.

#include "proved_general_adjoint.hpp"

#include "../cases/portable_math.hpp"
#include "proved_inverse.hpp"

namespace kdacheck {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

} // namespace

void GeneralAdjoint::retreat(AdjointBound& out) {
  v_.resize(n_, V_);
  std::copy_n(value(0), n_ * V_, v_.data.begin());
  v_size_ = sizes(v_), v_sum_ = row_sums(v_size_, n_);
  bound_memories();
  bound_memory_cotangents();
  write_values(out);
  if (wy_) bound_erasure();
  bound_score_cotangents();
  bound_rows();
  write_rows(out);
  send_back(out);
}

void GeneralAdjoint::bound_memories() {
  bound_memory(Order::residual_first, state_error_);
  R_error_ = right_error_;
  w_error_.resize(n_, V_);
  for (Order order : orders_) {
    if (order == Order::wy) bound_memory(order, state_error_);
    for (std::size_t i = 0; i < w_error_.data.size(); ++i) w_error_.data[i] = std::max(w_error_.data[i], memory_error_.data[i]);
  }
  for (std::int64_t i = 0; i < n_; ++i)
    for (std::int64_t j = 0; j < V_; ++j) {
      w_error_[i][j] = sane(w_error_[i][j] + reach_[at(i)] * state_error_[at(j)]);
      R_error_[i][j] += read_norm_[at(i)] * state_error_[at(j)];
    }
  w_size_ = sum(sizes(memory_), w_error_), w_sum_ = row_sums(w_size_, n_);
}

void GeneralAdjoint::bound_memory_cotangents() {
  const double y = product_unit(n_ + K_ + 1);
  BoundMatrix size;
  for (BoundMatrix* m : {&dw_, &dw_error_, &size}) m->resize(n_, V_);
  std::vector<double> slack(at(K_)), passed(at(n_));
  for (std::int64_t i = 0; i < n_; ++i) {
    double sums = 0;
    for (std::int64_t m = i; m < n_; ++m) sums += std::abs(query_a_[m][i]) + query_a_error_[m][i] + d_o_sum_[at(m)];
    for (std::int64_t c = 0; c < K_; ++c) {
      slack[at(c)] = (1 + y) * a_slack_[i][c] + y * std::abs(a_remaining_[i][c]);
      sums += a_size_[i][c] + lambda_row_sum_[at(c)];
    }
    add_rows(dw_[i], i, n_, d_o_, [&](std::int64_t m) { return -query_a_[m][i]; });
    add_rows(dw_[i], 0, K_, lambda_, [&](std::int64_t c) { return -a_remaining_[i][c]; });
    add_rows(dw_error_[i], i, n_, d_o_size_, [&](std::int64_t m) { return (1 + y) * query_a_error_[m][i] + y * std::abs(query_a_[m][i]); });
    add_rows(dw_error_[i], 0, K_, lambda_size_, [&](std::int64_t c) { return slack[at(c)]; });
    const double norm = norm_of(a_remaining_[i], K_), slack_norm = norm_of(slack.data(), K_);
    passed[at(i)] = norm;
    for (std::int64_t j = 0; j < V_; ++j) {
      size[i][j] = std::abs(dw_[i][j]) + norm * epsilon_[at(j)];
      const double before = dw_error_[i][j] + slack_norm * lambda_error_[at(j)] + norm * read_error_[at(j)] + lost(sums);
      dw_error_[i][j] = sane((before + units_.operand.error(size[i][j] + before)) * ProvedUnits::up);
    }
  }
  Y_ = dw_;
  for (std::int64_t i = n_ - 1; i >= 0; --i) add_rows(Y_[i], i + 1, n_, Y_, [&](std::int64_t m) { return -L_[m][i]; });
  held_.assign(at(n_), 0.0), held_key_ = held_;
  double after = 1;
  for (std::int64_t i = n_ - 1; i >= 0; --i) {
    held_[at(i)] = norm_of(a_.value[i], K_) * after, held_key_[at(i)] = norm_of(k_.value[i], K_) * after;
    after *= step_[at(i)];
  }
  BoundMatrix solution = sizes(Y_);
  for (std::int64_t i = 0; i < n_; ++i)
    for (std::int64_t j = 0; j < V_; ++j) solution[i][j] += held_[at(i)] * epsilon_[at(j)];
  back_.solve_transposed(V_, size, dw_error_, solution, Y_own_error_);
  Y_error_ = Y_own_error_, dw_own_error_ = dw_error_;
  for (std::int64_t i = 0; i < n_; ++i)
    for (std::int64_t j = 0; j < V_; ++j) { // of Lambda' too
      Y_error_[i][j] += held_[at(i)] * epsilon_[at(j)];
      dw_error_[i][j] += passed[at(i)] * epsilon_[at(j)];
    }
  Y_size_ = sum(sizes(Y_), Y_error_), dw_size_ = sum(sizes(dw_), dw_error_);
  Y_sum_ = row_sums(Y_size_, n_), dw_sum_ = row_sums(dw_size_, n_);
}

void GeneralAdjoint::write_values(AdjointBound& out) {
  const double y = product_unit(2 * n_ + K_ + 2);
  std::vector<double> slack(at(K_)), exact(at(V_)), error(at(V_));
  for (std::int64_t i = 0; i < n_; ++i) {
    double sums = 0;
    for (std::int64_t m = i; m < n_; ++m)
      sums += std::abs(query_key_[m][i]) + query_key_error_[m][i] + d_o_sum_[at(m)] + std::abs(M_[m][i]) + M_error_[m][i] + Y_sum_[at(m)];
    for (std::int64_t c = 0; c < K_; ++c) {
      slack[at(c)] = (1 + y) * key_slack_[i][c] + y * std::abs(key_remaining_[i][c]);
      sums += std::abs(key_remaining_[i][c]) + key_slack_[i][c] + lambda_row_sum_[at(c)];
    }
    std::fill(exact.begin(), exact.end(), 0.0), std::fill(error.begin(), error.end(), 0.0);
    add_rows(exact.data(), i, n_, d_o_, [&](std::int64_t m) { return query_key_[m][i]; });
    add_rows(exact.data(), 0, K_, lambda_, [&](std::int64_t c) { return key_remaining_[i][c]; });
    add_rows(exact.data(), i + 1, n_, Y_, [&](std::int64_t m) { return M_[m][i]; });
    add_rows(error.data(), i, n_, d_o_size_,
             [&](std::int64_t m) { return (1 + y) * query_key_error_[m][i] + y * std::abs(query_key_[m][i]); });
    add_rows(error.data(), 0, K_, lambda_size_, [&](std::int64_t c) { return slack[at(c)]; });
    add_rows(error.data(), i + 1, n_, Y_own_error_, [&](std::int64_t m) { return (1 + y) * (std::abs(M_[m][i]) + M_error_[m][i]); });
    add_rows(error.data(), i + 1, n_, Y_size_, [&](std::int64_t m) { return (1 + y) * M_error_[m][i] + y * std::abs(M_[m][i]); });
    const double norm = norm_of(key_remaining_[i], K_), slack_norm = norm_of(slack.data(), K_);
    double worst = 0;
    for (std::int64_t j = 0; j < V_; ++j) {
      const double passed = held_key_[at(i)] * epsilon_[at(j)];
      const double own = error[at(j)] + slack_norm * lambda_error_[at(j)] + norm * read_error_[at(j)] + lost(sums);
      worst = std::max(worst, sane((own + passed + 2.1 * f * (std::abs(exact[at(j)]) + passed + own)) * ProvedUnits::up));
    }
    out.v[at(first_ + i)] = std::max(out.v[at(first_ + i)], worst);
  }
}

void GeneralAdjoint::bound_erasure() {
  const double y = product_unit(V_), state_errors = std::accumulate(state_error_.begin(), state_error_.end(), 0.0);
  BoundMatrix error, size, solution;
  for (BoundMatrix* m : {&error, &size, &solution, &erased_size_, &erased_own_error_, &read_cotangent_}) m->resize(n_, K_);
  for (std::int64_t i = 0; i < n_; ++i) {
    const double norm = norm_of(a_remaining_[i], K_);
    for (std::int64_t c = 0; c < K_; ++c) {
      Lanes w{}, b{}, all{}, own{}, of_state{}, of_both{};
      for (std::int64_t v = 0; v < V_; v += draws_per_batch) {
        const Lanes S = lanes_at(state_[c], v, V_), e = lanes_at(state_error_.data(), v, V_), S_size = absolute(S) + e;
        const Lanes epsilon = lanes_at(epsilon_.data(), v, V_), dw = lanes_at(dw_[i], v, V_), Y = lanes_at(Y_[i], v, V_);
        w += dw * S, b += Y * S;
        all += lanes_at(dw_size_[i], v, V_) * S_size, own += lanes_at(dw_own_error_[i], v, V_) * S_size;
        of_state += absolute(dw) * e + norm * epsilon * S_size;
        of_both += absolute(Y) * e + held_[at(i)] * epsilon * S_size;
      }
      read_cotangent_[i][c] = total(b);
      const double made = y * total(all) + lost(dw_sum_[at(i)] + state_row_sum_[at(c)] + state_errors);
      size[i][c] = std::abs(total(w)) + total(of_state);
      erased_own_error_[i][c] = sane((made + units_.operand.error(size[i][c] + total(own) + made)) * ProvedUnits::up);
      error[i][c] = sane(total(own) + erased_own_error_[i][c]);
      erased_size_[i][c] = size[i][c] + error[i][c];
      solution[i][c] = std::abs(total(b)) + total(of_both);
    }
  }
  back_.solve_transposed(K_, size, error, solution, read_cotangent_error_);
  for (std::int64_t i = 0; i < n_; ++i)
    for (std::int64_t c = 0; c < K_; ++c)
      read_cotangent_error_[i][c] = sane(read_cotangent_error_[i][c] + solution[i][c] - std::abs(read_cotangent_[i][c]));
}

double GeneralAdjoint::error_of_inverse_cotangent(std::int64_t i, std::int64_t j) const {
  const double g = units_.gamma(V_ + K_);
  Lanes result{};
  for (std::int64_t v = 0; v < V_; v += draws_per_batch) {
    const Lanes mixed = lanes_at(mixed_size_[j], v, V_), before = lanes_at(mixed_error_[j], v, V_);
    const Lanes error = before + units_.operand.unit * (mixed + before) + units_.operand.flush;
    result += lanes_at(dw_size_[i], v, V_) * (error + g * (mixed + error));
  }
  for (std::int64_t c = 0; c < K_; c += draws_per_batch) {
    const Lanes key = absolute(lanes_at(read_key_[j], c, K_)), error = lanes_at(read_slack_[j], c, K_) + units_.operand.flush;
    result += lanes_at(erased_own_error_[i], c, K_) * key + lanes_at(erased_size_[i], c, K_) * (error + g * (key + error));
  }
  const double largest = *std::max_element(mixed_size_[j], mixed_size_[j] + V_) + *std::max_element(mixed_error_[j], mixed_error_[j] + V_);
  return largest <= units_.operand.limit ? total(result) + lost(1) : infinity;
}

void GeneralAdjoint::bound_score_cotangents() {
  const double g = units_.gamma(V_), a = (1 + units_.score.unit) * (1 + 2.1 * f) - 1;
  const BoundMatrix by_inverse =
      error_by_inverse(units_, back_, n_, {.U = memory_, .Z = right_, .Z_error = R_error_, .dU = dw_, .dU_error = dw_error_, .dZ = Y_},
                       lost(1), [&](std::int64_t i, std::int64_t j) { return wy_ ? error_of_inverse_cotangent(i, j) : 0; });
  BoundMatrix none;
  none.resize(n_, V_);
  struct Factor {
    const BoundMatrix &exact, &error, &size;
    const std::vector<double>& sums;
    int roundings; ///< which its error does not hold
  };
  const Factor of_o{d_o_, none, d_o_size_, d_o_sum_, 1}, of_v{v_, none, v_size_, v_sum_, 1}, of_Y{Y_, Y_error_, Y_size_, Y_sum_, 0},
      of_w{memory_, w_error_, w_size_, w_sum_, 0};
  const auto outer = [&](const Factor& left, const Factor& right, double sign, std::int64_t diagonal, Cotangent& into,
                         const BoundMatrix* other) {
    into.exact.resize(n_, n_), into.error.resize(n_, n_);
    const double y = (1 + g) * std::pow(1 + units_.operand.unit, left.roundings + right.roundings) - 1;
    for (std::int64_t i = 0; i < n_; ++i)
      for (std::int64_t j = 0; j < i + diagonal; ++j) {
        Lanes exact{}, error{};
        for (std::int64_t v = 0; v < V_; v += draws_per_batch) {
          const Lanes x = lanes_at(left.exact[i], v, V_), z = lanes_at(right.size[j], v, V_);
          exact += x * lanes_at(right.exact[j], v, V_);
          error +=
              absolute(x) * lanes_at(right.error[j], v, V_) + lanes_at(left.error[i], v, V_) * z + y * lanes_at(left.size[i], v, V_) * z;
        }
        double before = sane(total(error) + lost(left.sums[at(i)] + right.sums[at(j)]));
        if (other) before = std::max(before, (*other)[i][j]);
        const double size = std::abs(total(exact)) + before;
        into.exact[i][j] = sign * total(exact);
        into.error[i][j] = size <= units_.score.limit ? sane((before + a * size) * ProvedUnits::up + units_.score.flush) : infinity;
      }
  };
  outer(of_Y, of_w, -1, 0, of_L_, &by_inverse);
  outer(of_Y, of_v, 1, 0, of_M_, nullptr);
  outer(of_o, of_w, -1, 1, of_query_a_, nullptr);
  outer(of_o, of_v, 1, 1, of_query_key_, nullptr);
}

void GeneralAdjoint::send_back(AdjointBound& out) {
  const double more = units_.gamma(n_);
  BoundMatrix before, local, by;
  before.resize(K_, V_), local.resize(K_, V_);
  std::vector<double> rows(at(K_), 0.0), columns(at(V_), 0.0);
  for (std::int64_t i = 0; i < n_; ++i)
    for (std::int64_t j = 0; j < V_; ++j) columns[at(j)] += d_o_size_[i][j] + Y_size_[i][j] + dw_size_[i][j];
  for (std::int64_t c = 0; c < K_; ++c) {
    by.resize(2, V_);
    for (std::int64_t i = 0; i < n_; ++i)
      rows[at(c)] += std::abs(query_decayed_[i][c]) + query_slack_[i][c] + std::abs(read_key_[i][c]) + read_slack_[i][c] +
                     (wy_ ? std::abs(erasing_[i][c]) + erasing_error_[i][c] : 0);
    for (std::int64_t j = 0; j < V_; ++j)
      before[c][j] = whole_[at(c)] * lambda_[c][j], local[c][j] = whole_slack_[at(c)] * lambda_size_[c][j];
    add_rows(before[c], 0, n_, d_o_, [&](std::int64_t i) { return query_decayed_[i][c]; });
    add_rows(before[c], 0, n_, Y_, [&](std::int64_t i) { return read_key_[i][c]; });
    add_rows(local[c], 0, n_, d_o_size_,
             [&](std::int64_t i) { return query_slack_[i][c] + more * (std::abs(query_decayed_[i][c]) + query_slack_[i][c]); });
    const auto size = [&](std::int64_t i) { return std::abs(read_key_[i][c]) + read_slack_[i][c]; };
    add_rows(by[0], 0, n_, Y_size_, [&](std::int64_t i) { return read_slack_[i][c] + more * size(i); });
    add_rows(by[0], 0, n_, Y_own_error_, [&](std::int64_t i) { return (1 + more) * size(i); });
    if (wy_) {
      const auto W_size = [&](std::int64_t i) { return std::abs(erasing_[i][c]) + erasing_error_[i][c]; };
      add_rows(by[1], 0, n_, dw_size_, [&](std::int64_t i) { return erasing_error_[i][c] + more * W_size(i); });
      add_rows(by[1], 0, n_, dw_own_error_, [&](std::int64_t i) { return (1 + more) * W_size(i); });
    }
    for (std::int64_t j = 0; j < V_; ++j) local[c][j] += std::max(sane(by[0][j]), sane(by[1][j]));
  }
  carry_back(before, local, rows, columns, out);
}

AdjointBound bound_general_adjoint(const ProvedUnits& units, const Head& head, double gate_floor, std::int64_t chunk, std::int64_t length,
                                   const std::vector<Order>& orders, const ChunkStarts& starts, const std::vector<double>& d_o,
                                   const std::vector<double>& d_state) {
  return GeneralAdjoint(units, head, gate_floor, chunk, length, orders, starts).run(d_o, d_state);
}

} // namespace kdacheck
