// Running error bound of the reverse mode of the chunkwise form (design section 1), in the notation of proved_chunk.cpp.
//
// 1 Cotangent of the state. Lambda, that of S, follows from Lambda' of the chunk's end and from dO alone, not from S: the map
//   Lambda' -> Lambda is the transpose of the chunk's map of states, with the same norm. A kernel has Lambda'^ = Lambda' + X; with
//   |X_j|_2 <= eps_j for each column j
//     eps_j(before) = a_C eps_j + |d_j|_2,   d: the error that the chunk itself makes, from Lambda'^.
//   Exact quantities from Lambda'^ differ from those from Lambda' by at most
//     |dU~_i - dU_i| <= |kr_i|_2 eps     |dZ~_i - dZ_i| <= |k_i|_2 prod_{t>i} n_t eps,   as dZ_i = k_i^T (cotangent of the state after i).
// 2 dU = Aqk^T dO + kr Lambda':  sum (dA + ((1 + g)(1 + u) - 1) (A + dA)) |dO| + sum_c (the same of kr) |Lambda'^_c|, one operand rounding.
// 3 dZ = T^T dU: SolveBound::solve_transposed.    dv = beta dZ, and W = beta dZ as an operand: |beta| d(dZ) + (error of beta, 2 u, 2 u_f).
// 4 dAqk = tril(dO U^T), dAkk = -beta strict_tril(dZ U^T):  sum |dO| dU^ + ((1 + u)(1 + g) - 1) |dO| |U|^, and so on, one rounding as an
//   operand of the scores; or dAkk = -(beta dZ)^ U^T, where each term has been rounded twice. dU^ is what the forward pass leaves U wrong
//   by, errors of the state included; |x|^ = |x| + dx. A kernel that differentiates T itself has dL = -T^T dT T^T with dT = dU Z^T, and M =
//   T^T dT = dZ Z^T or N = dT T^T = dU U^T first, each rounded to an operand: with t the error of T^,
//     dM = sum t |dT|^ + |T| d(dT)      d(dL) = sum dM |T| + |M|^ t      and likewise of N.      The largest bound on dL counts.
// 5 Rows. e^G (dO S^T) errs by e^G ((D of 2, exponential, u, u_f, g_V) |dO| |S|^ + |dO| e), a row of Akk or Aqk by
//     sum_j (dP + theta_ic (|P| + dP)) |k_jc| e^{G_i - G_j}
//   with theta of proved_chunk.cpp, 3, and sums over at most n terms; columns alike, where theta is that of the row.
// 6 dbeta_i = dZ_i . (V - kd S - Akk U)_i, or dZ_i . (V - kd S)_i + dL_i . Akk_i: the larger bound.
// 7 dg: the reverse sum inside the chunk of q dq + k (dk as a row - dk as a column), on top of e^{G_C} S . Lambda' and k kr; summed in any
//   order. Pairs i = j and the last token's own write are 0 in all: a kernel may add and subtract them.
// 8 Carry back. Lambda = e^{G_C} Lambda' + qd^T dO - kd^T W, as 8 of proved_chunk.cpp.
//
// 9 Order wy. U errs as in 6 of proved_chunk.cpp, and a kernel may go back through W = T beta kd, or in part (the larger bound of each
// counts):
//     dW = -dU S^T     dT = dU (beta V)^T + dW (beta kd)^T     dv = beta T^T dU     d(kd) = beta T^T dW = -beta dZ S^T
//     dbeta_i = (T^T dU)_i . V_i + (T^T dW)_i . kd_i + dL_i . Akk_i                Lambda = e^{G_C} Lambda' + qd^T dO - W^T dU
//   From dU^ and S^, dW errs by ((1 + u)(1 + g_V) - 1) sum |dU|^ |S|^ and a rounding, and T^T dW by SolveBound::solve_transposed; what
//   errors of Lambda' and S put on it is what they put on dZ S^T: h_i eps |S|^ + |dZ_i| e. dT errs besides 4 by
//     sum |dU|^ d(beta V) + g |dU|^ |beta V|^  +  sum d(dW) |beta kd| + |dW|^ d(beta kd) + g |dW|^ |beta kd|^     g over V + K terms.
//
// The forward pass may have been in chunks of another length than the reverse: the error of S at a chunk's start is the largest over the
// lengths, and orders, that may end there, each from the largest error at its own start (chunk_starts). Each chunk is computed forward
// again from S^; where `gradient_state` is coarse both S^ and Lambda'^ may be read rounded to it everywhere but on their way to the next
// chunk. Exact values are computed in fp64; `up` covers what they err by, as in the other bounds.
//
// 10 fp16 rounds what is small to multiples of 2^-24, by w = 2^-25 at most: a sum of products x y errs besides by 4 w sum (|x| + |y|)
//   (lost), and what is stored or an operand by w itself. Where dO, S, Lambda', a row of q or k, or anything that is rounded may exceed
//   65504 nothing is known: `beyond_`, Elementary::limit. Rows that are normalised inside lose w before they are multiplied: scores' rows
//   and columns w (1 + |scale|) (1 + theta) (|P|^ + |Q|^) more (add_scores).
//
// Chunks in one pass and single tokens in the other: proved_starts.cpp. Not covered: sums in fp16.

#include "proved_chunk_adjoint.hpp"

#include "proved_inverse.hpp"

#include <algorithm>
#include <cmath>

namespace kdacheck {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

} // namespace

void ChunkAdjoint::retreat(AdjointBound& out) {
  bound_updates();
  bound_residual_cotangent();
  dU_sum_ = row_sums(sum(sizes(dU_), dU_error_), n_);
  if (wy_) bound_erasure();
  write_values(out);
  bound_score_cotangents();
  write_strength(out);
  bound_rows();
  write_rows(out);
  send_back(out);
}

void ChunkAdjoint::bound_updates() {
  bound_update(Order::residual_first, state_error_);
  Z_error_ = right_error_;
  U_error_.resize(n_, V_);
  for (Order order : orders_) {
    if (order == Order::wy) bound_update(order, state_error_);
    for (std::size_t i = 0; i < U_error_.data.size(); ++i) U_error_.data[i] = std::max(U_error_.data[i], update_error_.data[i]);
  }
  for (std::int64_t i = 0; i < n_; ++i)
    for (std::int64_t j = 0; j < V_; ++j) U_error_[i][j] = sane(U_error_[i][j] + reach_[at(i)] * state_error_[at(j)]);
}

void ChunkAdjoint::bound_residual_cotangent() {
  const double y = product_unit(n_ + K_ + 1);
  BoundMatrix &dU = dU_, &dU_error = dU_error_, dU_size;
  for (BoundMatrix* m : {&dU, &dU_error, &dU_size, &dZ_, &dZ_error_}) m->resize(n_, V_);
  std::vector<double> slack(at(K_));
  for (std::int64_t i = 0; i < n_; ++i) {
    double score_sum = 0, key_sum = 0;
    for (std::int64_t m = i; m < n_; ++m) score_sum += std::abs(scores_[m][i]) + scores_error_[m][i];
    for (std::int64_t c = 0; c < K_; ++c) {
      slack[at(c)] = (1 + y) * remaining_slack_[i][c] + y * std::abs(remaining_[i][c]);
      key_sum += remaining_size_[i][c];
    }
    add_rows(dU[i], i, n_, d_o_, [&](std::int64_t m) { return scores_[m][i]; });
    add_rows(dU[i], 0, K_, lambda_, [&](std::int64_t c) { return remaining_[i][c]; });
    add_rows(dU_error[i], i, n_, d_o_size_, [&](std::int64_t m) { return (1 + y) * scores_error_[m][i] + y * std::abs(scores_[m][i]); });
    add_rows(dU_error[i], 0, K_, lambda_size_, [&](std::int64_t c) { return slack[at(c)]; });
    const double key_norm = norm_of(remaining_[i], K_), slack_norm = norm_of(slack.data(), K_);
    for (std::int64_t j = 0; j < V_; ++j) {
      const double size = std::abs(dU[i][j]) + key_norm * epsilon_[at(j)];
      const double before = dU_error[i][j] + slack_norm * lambda_error_[at(j)] + key_norm * read_error_[at(j)] + lost(score_sum + key_sum);
      dU_size[i][j] = size;
      dU_error[i][j] = sane((before + units_.operand.error(size + before)) * ProvedUnits::up);
    }
  }
  dZ_ = dU;
  for (std::int64_t i = n_ - 1; i >= 0; --i) add_rows(dZ_[i], i + 1, n_, dZ_, [&](std::int64_t m) { return -L_[m][i]; });
  held_.assign(at(n_), 0.0);
  double after = 1;
  for (std::int64_t i = n_ - 1; i >= 0; --i) {
    held_[at(i)] = norm_of(head_.k.data() + (first_ + i) * K_, K_) * after;
    after *= step_[at(i)];
  }
  BoundMatrix dZ_size = sizes(dZ_);
  for (std::int64_t i = 0; i < n_; ++i)
    for (std::int64_t j = 0; j < V_; ++j) dZ_size[i][j] += held_[at(i)] * epsilon_[at(j)];
  back_.solve_transposed(V_, dU_size, dU_error, dZ_size, dZ_error_);
  dU_own_error_ = dU_error_;
  for (std::int64_t i = 0; i < n_; ++i) {
    const double key_norm = norm_of(remaining_[i], K_);
    for (std::int64_t j = 0; j < V_; ++j) dU_error_[i][j] += key_norm * epsilon_[at(j)]; // from here on that of Lambda' too
  }
}

void ChunkAdjoint::write_values(AdjointBound& out) {
  const double u = units_.operand.unit;
  for (BoundMatrix* m : {&W_, &W_error_, &W_own_error_}) m->resize(n_, V_);
  for (std::int64_t i = 0; i < n_; ++i) {
    const double strength = std::abs(beta(i)), x = (1 + beta_error(i)) * (1 + u) * (1 + u) * (1 + 2.1 * f) - 1;
    double worst = 0;
    for (std::int64_t j = 0; j < V_; ++j) {
      const double passed = held_[at(i)] * epsilon_[at(j)], size = std::abs(dZ_[i][j]) + passed;
      W_[i][j] = beta(i) * dZ_[i][j];
      const double own = strength * (dZ_error_[i][j] * (1 + x) + x * size) + lost(strength + size + dZ_error_[i][j]);
      W_own_error_[i][j] = strength * size + own <= units_.operand.limit ? sane(own * ProvedUnits::up) : infinity;
      W_error_[i][j] = W_own_error_[i][j] + strength * passed;
      dZ_error_[i][j] += passed;
      worst = std::max(worst, sane(W_error_[i][j] * ProvedUnits::up));
    }
    out.v[at(first_ + i)] = std::max(out.v[at(first_ + i)], worst);
  }
  W_size_ = sum(sizes(W_), W_error_), W_sum_ = row_sums(W_size_, n_), dZ_sum_ = row_sums(sum(sizes(dZ_), dZ_error_), n_);
}

void ChunkAdjoint::bound_score_cotangents() {
  const double y = product_unit(V_), g = units_.gamma(V_), a = (1 + units_.score.unit) * (1 + 2.1 * f) - 1, flush = units_.score.flush;
  const auto rounded = [&](double size, double error) {
    return size + error <= units_.score.limit ? sane((error + a * (size + error)) * ProvedUnits::up + flush) : infinity;
  };
  U_size_ = sum(sizes(U_), U_error_), U_sum_ = row_sums(U_size_, n_);
  for (BoundMatrix* m : {&P_, &P_error_, &Q_, &Q_error_, &dL_, &dL_error_}) m->resize(n_, n_);
  BoundMatrix of_Z = Z_error_; // of S too
  for (std::int64_t j = 0; j < n_; ++j)
    for (std::int64_t v = 0; v < V_; ++v) of_Z[j][v] += std::abs(beta(j)) * key_norm_[at(j)] * state_error_[at(v)];
  const BoundMatrix by_inverse =
      error_by_inverse(units_, back_, n_, {.U = U_, .Z = Z_, .Z_error = of_Z, .dU = dU_, .dU_error = dU_error_, .dZ = dZ_}, lost(1),
                       [&](std::int64_t i, std::int64_t j) { return wy_ ? error_of_inverse_cotangent(i, j) : 0; });
  for (std::int64_t i = 0; i < n_; ++i) {
    const double strength = std::abs(beta(i));
    for (std::int64_t j = 0; j <= i; ++j) {
      Lanes p{}, p_error{}, l{}, l_error{}, w_error{};
      for (std::int64_t v = 0; v < V_; v += draws_per_batch) {
        const Lanes o = lanes_at(d_o_[i], v, V_), U = lanes_at(U_[j], v, V_), Z = lanes_at(dZ_[i], v, V_);
        const Lanes U_error = lanes_at(U_error_[j], v, V_), U_size = lanes_at(U_size_[j], v, V_);
        const Lanes Z_error = lanes_at(dZ_error_[i], v, V_), Z_size = absolute(Z);
        p += o * U, p_error += absolute(o) * (U_error + y * U_size);
        l += Z * U, l_error += Z_size * U_error + Z_error * U_size + g * (Z_size + Z_error) * U_size;
        w_error += absolute(lanes_at(W_[i], v, V_)) * U_error + (lanes_at(W_error_[i], v, V_) + g * lanes_at(W_size_[i], v, V_)) * U_size;
      }
      P_[i][j] = total(p);
      P_error_[i][j] = rounded(std::abs(P_[i][j]), total(p_error) + lost(d_o_sum_[at(i)] + U_sum_[at(j)]));
      if (j == i) continue;
      dL_[i][j] = -total(l),
      dL_error_[i][j] = std::max(by_inverse[i][j], sane(total(l_error) * ProvedUnits::up + lost(dZ_sum_[at(i)] + U_sum_[at(j)])));
      Q_[i][j] = beta(i) * dL_[i][j];
      const double x = (1 + beta_error(i)) * (1 + 2.1 * f) - 1;
      const double of_L = strength * (dL_error_[i][j] + x * (std::abs(dL_[i][j]) + dL_error_[i][j]));
      const double of_W = total(w_error) + lost(W_sum_[at(i)] + U_sum_[at(j)]);
      Q_error_[i][j] = rounded(std::abs(Q_[i][j]), std::max(sane(of_L), sane(of_W)));
    }
  }
}

void ChunkAdjoint::write_strength(AdjointBound& out) {
  const double u = units_.operand.unit, y = product_unit(K_ + n_ + 4), g = units_.gamma(K_ + n_ + 4),
               over_V = (1 + units_.gamma(V_ + n_ + 2)) * (1 + u) * (1 + u) - 1;
  std::vector<double> w(at(V_)), w_error(at(V_)), read_size(at(V_)), column_sum(at(V_), 0.0); // of |U| so far
  for (std::int64_t i = 0; i < n_; ++i) {
    std::fill(w.begin(), w.end(), 0.0), std::fill(w_error.begin(), w_error.end(), 0.0), std::fill(read_size.begin(), read_size.end(), 0.0);
    add_rows(w.data(), 0, i, U_, [&](std::int64_t m) { return -key_scores_[i][m]; });
    add_rows(read_size.data(), 0, i, U_size_, [&](std::int64_t m) { return std::abs(key_scores_[i][m]) + key_scores_error_[i][m]; });
    add_rows(w_error.data(), 0, i, U_error_, [&](std::int64_t m) { return (1 + y) * std::abs(key_scores_[i][m]); });
    add_rows(w_error.data(), 0, i, U_size_, [&](std::int64_t m) { return (1 + y) * key_scores_error_[i][m]; });
    double direct = 0, exact = 0, split = 0, of_L = 0, size = dZ_sum_[at(i)], scores_sum = 0;
    for (std::int64_t m = 0; m < i; ++m) scores_sum += std::abs(key_scores_[i][m]) + key_scores_error_[i][m];
    for (std::int64_t j = 0; j < V_ && i > 0; ++j) column_sum[at(j)] += U_size_[i - 1][j];
    for (std::int64_t j = 0; j < V_; ++j) {
      const double e = state_error_[at(j)], R = std::abs(residual_[i][j]), Z = std::abs(dZ_[i][j]), Z_error = dZ_error_[i][j];
      const double v = std::abs(head_.v[at((first_ + i) * V_ + j)]);
      const double R_error =
          Z_slack_[i][j] + (slack_norm_[at(i)] + key_norm_[at(i)]) * e + g * v + lost(key_sum_[at(i)] + state_sum_[at(j)] + root_ * e);
      w[at(j)] += residual_[i][j];
      const double of_w = R_error + w_error[at(j)] + y * read_size[at(j)] + g * (R + R_error) + lost(scores_sum + column_sum[at(j)]);
      size += std::abs(w[at(j)]) + of_w + R + R_error;
      exact += dZ_[i][j] * w[at(j)];
      direct += Z_error * (std::abs(w[at(j)]) + of_w) + Z * of_w + over_V * (Z + Z_error) * (std::abs(w[at(j)]) + of_w);
      split += Z_error * (R + R_error) + Z * R_error + over_V * (Z + Z_error) * (R + R_error);
    }
    for (std::int64_t m = 0; m < i; ++m) {
      const double L = std::abs(dL_[i][m]), L_size = L + dL_error_[i][m], A = std::abs(key_scores_[i][m]);
      size += L_size;
      of_L += dL_error_[i][m] * A + (L_size + over_V * L_size) * key_scores_error_[i][m] + over_V * L_size * A;
    }
    split = std::max(sane(split), wy_ ? sane(error_of_strength(i)) : 0) + of_L;
    out.beta_size[at(first_ + i)] = std::abs(exact);
    out.beta[at(first_ + i)] =
        std::max(out.beta[at(first_ + i)], sane(std::max(sane(direct), sane(split)) * ProvedUnits::up + lost(size + scores_sum)));
  }
}

void ChunkAdjoint::send_back(AdjointBound& out) {
  // The slacks hold sums of K + n + 1 terms; both products may go to one number, which has 2 n + 1.
  const double more = n_ > K_ ? units_.gamma(n_) : 0, of_W = n_ >= K_ ? units_.gamma(n_) : 0;
  BoundMatrix before, local, erased;
  before.resize(K_, V_), local.resize(K_, V_), erased.resize(wy_ ? 2 : 0, V_);
  const BoundMatrix dU_size = wy_ ? sum(sizes(dU_), dU_error_) : BoundMatrix{};
  std::vector<double> rows(at(K_), 0.0), columns(at(V_), 0.0);
  for (std::int64_t i = 0; i < n_; ++i)
    for (std::int64_t j = 0; j < V_; ++j) columns[at(j)] += d_o_size_[i][j] + W_size_[i][j] + (wy_ ? dU_size[i][j] : 0);
  for (std::int64_t c = 0; c < K_; ++c) {
    for (std::int64_t j = 0; j < V_; ++j)
      before[c][j] = whole_[at(c)] * lambda_[c][j], local[c][j] = whole_slack_[at(c)] * lambda_size_[c][j];
    add_rows(before[c], 0, n_, d_o_, [&](std::int64_t i) { return query_[i][c]; });
    add_rows(before[c], 0, n_, W_, [&](std::int64_t i) { return -key_[i][c]; });
    add_rows(local[c], 0, n_, d_o_size_,
             [&](std::int64_t i) { return query_slack_[i][c] + more * (std::abs(query_[i][c]) + query_slack_[i][c]); });
    double* written = wy_ ? erased[0] : local[c];
    if (wy_) {
      std::fill(erased.data.begin(), erased.data.end(), 0.0);
      const auto W_size = [&](std::int64_t i) { return std::abs(erasing_[i][c]) + erasing_error_[i][c]; };
      add_rows(erased[1], 0, n_, dU_size, [&](std::int64_t i) { return erasing_error_[i][c] + of_W * W_size(i); });
      add_rows(erased[1], 0, n_, dU_own_error_, [&](std::int64_t i) { return (1 + of_W) * W_size(i); });
    }
    add_rows(written, 0, n_, W_size_, [&](std::int64_t i) { return key_slack_[i][c] + more * (std::abs(key_[i][c]) + key_slack_[i][c]); });
    add_rows(written, 0, n_, W_own_error_, [&](std::int64_t i) { return (1 + more) * (std::abs(key_[i][c]) + key_slack_[i][c]); });
    for (std::int64_t j = 0; wy_ && j < V_; ++j) local[c][j] += std::max(sane(erased[0][j]), sane(erased[1][j]));
    for (std::int64_t i = 0; i < n_; ++i)
      rows[at(c)] += std::abs(query_[i][c]) + query_slack_[i][c] + std::abs(key_[i][c]) + key_slack_[i][c] +
                     (wy_ ? std::abs(erasing_[i][c]) + erasing_error_[i][c] : 0);
  }
  carry_back(before, local, rows, columns, out);
}

AdjointBound bound_chunk_adjoint(const ProvedUnits& units, const Head& head, double gate_floor, std::int64_t chunk, std::int64_t length,
                                 const std::vector<Order>& orders, const ChunkStarts& starts, const std::vector<double>& d_o,
                                 const std::vector<double>& d_state) {
  return ChunkAdjoint(units, head, gate_floor, chunk, length, orders, starts).run(d_o, d_state);
}

} // namespace kdacheck
