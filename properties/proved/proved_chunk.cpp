// Running error bound of the chunkwise form (design section 1), for all kernels at once that keep a contract.
//
// Notation: x exact, x^ what a kernel has, |x^ - x| <= dx; u, w: unit and flush of an operand, u_a of an operand of the
// scores, u_f of fp32 (proved_units.hpp); g_n = gamma_n. Sums may be in any order (Higham, 3.1): computed from a^, b^,
//   |fl(sum a^ b^) - sum a b| <= sum (|a||b| ((1 + t_a)(1 + t_b)(1 + g_n) - 1))   where |a^ - a| <= t_a |a|, |b^ - b| <= t_b |b|.
//
// 1 State. One chunk maps S linearly. A kernel starts from S^ = S + E; with |E_j|_2 <= e_j for each column j
//     e'_j = a_C e_j + |d_j|_2,   a_C = prod n_t,   n_t >= |(I - b k k^T) Diag(alpha)|_2   (spectra S7, S8)
//   where d is the error that the chunk itself makes, from S^. Old errors thus pass at the exact map's norm, at most 1
//   for beta |k|^2 in [0,2]. Exact quantities from S^ differ from those from S by at most
//     |U~_i - U_i| <= h_i e,  h_i = |b_i| |alpha_i k_i|_2 prod_{t<i} n_t        |o~_i - o_i| <= |scale q_i|_2 prod_{t<=i} n_t e
//   and Cauchy-Schwarz gives sum_c w_c |S^_c| <= sum_c w_c |S_c| + |w|_2 e.
// 2 Decay. G sums n terms in any order: |dG_i| <= D_i = sum (errors of resolving g, and of taking it into a coarser format of
//   sums) + i u_G / (1 - i u_G) |G_i|, as all terms have one sign. One exponential: e^G (1 + x), x <= e^{D + 3 u_f |G|} (1 + eta) - 1.
//   Scores take two, anchored at some r of i's block of 16 or between the rows; r^ cancels, so e^{G_i - G_j} errs by
//     e^{D_i + D_j + 3 u_f (|G_i - r| + |r - G_j|)} (1 + eta)^2 - 1,   D_j <= D_i,   |G_i - r|, |r - G_j| <= P_i = |G at the block's end|
//   a factor of the row alone. P_i <= |G_i| + 44: beyond that no anchor is legal (proved_units.hpp).
// 3 Scores. dA_ij = sum_c |k_ic k_jc| e^{G_i - G_j} theta_ic + flush, 1 + theta = (2) (1 + u_f)^2 (1 + u_a)^2 (1 + g_K) (1 + norm)^2.
//   A row that is normalised inside may be rounded to fp16 first: its element k errs by min(1, w / |k|) of itself where that is more than
//   u, which rows carry (ProvedUnits::small_log); columns lose w sum_c |k_ic| (1 + theta_ic) of it at most, as no decay exceeds 1. L = beta
//   A: dL = |beta| dA (1 + ...) + (error of beta, u_f, u_solve) |L|. Aqk is rounded once more, as an operand.
// 4, 5 Inverse and solve: proved_solve.cpp.
// 6 Orders. residual_first: B = Z = beta (V - kd S). wy: B = beta kd and beta V; U = U0 - W S with dU = dU0 + sum_c (dW |S^| +
//   ((1 + u)(1 + g) - 1)(|W| + dW)|S^|) + g |U0|.
// 7 Output. do_i = |scale q| prod n e + sum_c |qd| t |S^| + sum_m (|A| + dA) (1 + g) dU + (dA + g (|A| + dA)) |U~|.
// 8 Carry. d = whole t |S^| + sum_i |kr| (1 + t) dU + |kr| t |U~|, then u_state (|S~'| + d).
//
// Legal: chunks of the declared length or of its halvings down to 16 tokens, between which the state stays in fp32
// (proved_bound.cpp takes the largest).

#include "proved_chunk.hpp"

#include "../cases/portable_math.hpp"
#include "../perturbed/chunk_factors.hpp"

#include <algorithm>
#include <cmath>

namespace kdacheck {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// Largest norm of (I - beta k k^T) Diag(alpha).
double step_norm(double beta, double key_square, double largest_alpha, double decayed_key) {
  const double tau = beta * key_square, plain = largest_alpha * std::max(1.0, std::abs(1 - tau));
  const double stretch = beta * (tau - 2);
  if (!(stretch > 0)) return largest_alpha;
  return std::min(plain, std::sqrt(largest_alpha * largest_alpha + stretch * decayed_key * decayed_key));
}

} // namespace

std::vector<std::int64_t> chunk_lengths(std::int64_t chunk, std::int64_t tokens) {
  std::vector<std::int64_t> lengths{chunk};
  while (lengths.back() / 2 >= score_block && lengths.back() % 2 == 0) lengths.push_back(lengths.back() / 2);
  // a length that holds all tokens is like any other that does; the shortest such one comes last
  while (lengths.size() > 1 && lengths[1] >= tokens) lengths.erase(lengths.begin());
  return lengths;
}

ChunkBound::ChunkBound(const ProvedUnits& units, const Head& head, double gate_floor)
    : units_(units), head_(head), gate_floor_(gate_floor),
      norm_(head.normalised ? portable::log1p(units.norm(head.K)) + portable::log1p(units.operand.unit) : 0) {
  state_.columns = head.V;
  state_.data = head.state;
}

void ChunkBound::enter(std::int64_t first, std::int64_t n, bool with_wy) {
  first_ = first, n_ = n;
  read_decay();
  read_scores();
  inverse_.enter(units_, n, L_, L_error_);
  read_state();
  if (with_wy) read_wy();
}

void ChunkBound::read_decay() {
  const std::int64_t n = n_, K = head_.K;
  for (BoundMatrix* m : {&alpha_, &G_, &D_, &key_, &query_, &remaining_, &key_slack_, &query_slack_, &remaining_size_, &remaining_slack_})
    m->resize(n, K);
  for (auto* rows : {&reach_, &read_, &step_, &key_norm_, &key_sum_, &slack_norm_, &query_norm_, &query_sum_})
    rows->assign(static_cast<std::size_t>(n), 0.0);
  whole_.assign(static_cast<std::size_t>(K), 1.0);
  whole_slack_ = whole_;
  const double f = portable::log1p(ProvedUnits::single), exponential = portable::log1p(units_.exponential),
               operand = portable::log1p(units_.operand.unit);
  const double product = exponential + f + 2 * operand + portable::log1p(units_.gamma(K + n + 1)) + norm_, scaled = product + 2 * f;
  const double carried = exponential + f + operand + portable::log1p(units_.gamma(n + 1)) + norm_;
  const double kept = exponential + portable::log1p(units_.gamma(n + 1));
  std::vector<double> resolving(static_cast<std::size_t>(K), 0.0);
  double reach = 1;
  for (std::int64_t i = 0; i < n; ++i) {
    const auto t = static_cast<std::size_t>(first_ + i), row = static_cast<std::size_t>(i);
    const double x = static_cast<double>(i + 1) * units_.cumsum, of_sum = i == 0 ? 0.0 : x < 1 ? x / (1 - x) : infinity;
    double largest_alpha = 0, square = 0, decayed = 0, query_square = 0;
    for (std::int64_t c = 0; c < K; ++c) {
      const std::size_t entry = t * static_cast<std::size_t>(K) + static_cast<std::size_t>(c), channel = static_cast<std::size_t>(c);
      const double g = head_.g[entry], k = head_.k[entry], q = head_.scale * head_.q[entry], alpha = portable::exp(g);
      alpha_[i][c] = alpha;
      G_[i][c] = (i > 0 ? G_[i - 1][c] : 0.0) + g;
      resolving[channel] += ProvedUnits::second_order * (head_.gate_error[entry] + head_.sum_error[entry]) + gate_floor_;
      D_[i][c] = resolving[channel] + of_sum * std::abs(G_[i][c]);
      whole_[channel] *= alpha;
      const double decay = whole_[channel], log_error = D_[i][c] + ProvedUnits::argument * std::abs(G_[i][c]);
      key_[i][c] = k * decay, query_[i][c] = q * decay;
      key_slack_[i][c] = std::abs(key_[i][c]) * grown(log_error + product + small(k));
      query_slack_[i][c] = std::abs(q) * decay * grown(log_error + scaled + small(head_.q[entry]));
      largest_alpha = std::max(largest_alpha, alpha);
      square += k * k, decayed += alpha * alpha * k * k, query_square += q * q;
      key_sum_[row] += std::abs(k), query_sum_[row] += std::abs(q);
    }
    if (!(std::max(key_sum_[row], query_sum_[row]) <= units_.operand.limit))
      std::fill(key_slack_[i], key_slack_[i] + K, infinity), std::fill(query_slack_[i], query_slack_[i] + K, infinity);
    key_norm_[row] = norm_of(key_[i], K), slack_norm_[row] = norm_of(key_slack_[i], K), query_norm_[row] = norm_of(query_slack_[i], K);
    reach_[row] = std::abs(head_.beta[t]) * std::sqrt(decayed) * reach;
    step_[row] = step_norm(head_.beta[t], square, largest_alpha, std::sqrt(decayed));
    reach *= step_[row];
    read_[row] = std::sqrt(query_square) * reach;
  }
  contraction_ = reach;
  for (std::int64_t c = 0; c < K; ++c) {
    const double end = G_[n - 1][c], end_error = D_[n - 1][c];
    const auto channel = static_cast<std::size_t>(c);
    whole_slack_[channel] = whole_[channel] * grown(end_error + ProvedUnits::argument * std::abs(end) + kept);
    double after = 1;
    for (std::int64_t i = n - 1; i >= 0; --i) {
      const double k = head_.k[static_cast<std::size_t>((first_ + i) * K + c)];
      remaining_[i][c] = k * after;
      const double log_error = end_error + D_[i][c] + ProvedUnits::argument * std::abs(end - G_[i][c]);
      remaining_slack_[i][c] =
          std::abs(remaining_[i][c]) * grown(log_error + carried + small(k)) + units_.operand.flush * (1 + std::abs(k));
      remaining_size_[i][c] = std::abs(remaining_[i][c]) + remaining_slack_[i][c];
      after *= alpha_[i][c];
    }
  }
}

void ChunkBound::read_scores() {
  const std::int64_t n = n_, K = head_.K;
  for (BoundMatrix* m : {&L_, &L_error_, &scores_, &scores_error_, &key_scores_, &key_scores_error_}) m->resize(n, n);
  pair_log_.resize(n, K), growth_.assign(static_cast<std::size_t>(n), 1.0);
  const double f = ProvedUnits::single, a = units_.score.unit, flush = units_.score.flush;
  const double pair =
      2 * (portable::log1p(units_.exponential) + portable::log1p(f) + portable::log1p(a) + norm_) + portable::log1p(units_.gamma(K));
  const double scaled = pair + 2 * portable::log1p(f);
  std::vector<double> of_key(static_cast<std::size_t>(K)), of_query(of_key);
  BoundMatrix& decayed = scratch_; // row j: k_j e^{G_i - G_j} for the i at hand
  decayed.resize(n, K);
  for (std::int64_t i = 0; i < n; ++i) {
    const double* alpha = alpha_[i];
    const double* k = head_.k.data() + (first_ + i) * K;
    const double* q = head_.q.data() + (first_ + i) * K;
    const std::int64_t start = i / score_block * score_block, end = std::min(start + score_block, n) - 1;
    double growth = 0, of_key_column = 0, of_query_column = 0; // what a normalised column loses below its format's smallest
    for (std::int64_t c = 0; c < K; ++c) {
      const double here = std::abs(G_[i][c]), before = start > 0 ? std::abs(G_[start - 1][c]) : 0.0;
      const double farthest = std::min(std::abs(G_[end][c]), here + ProvedUnits::largest_growth);
      const double log_error = 2 * (D_[i][c] + ProvedUnits::argument * farthest);
      pair_log_[i][c] = log_error;
      growth = std::max(growth, std::min(std::abs(G_[end][c]) - before, ProvedUnits::largest_growth));
      of_key[static_cast<std::size_t>(c)] = std::abs(k[c]) * grown(log_error + pair + small(k[c]));
      of_query[static_cast<std::size_t>(c)] = std::abs(head_.scale * q[c]) * grown(log_error + scaled + small(q[c]));
      if (small_flush() > 0) {
        of_key_column += small_flush() * (std::abs(k[c]) + of_key[static_cast<std::size_t>(c)]);
        of_query_column += small_flush() * (std::abs(head_.scale * q[c]) + of_query[static_cast<std::size_t>(c)]);
      }
    }
    growth_[static_cast<std::size_t>(i)] = growth = portable::exp(growth);
    for (std::int64_t j = 0; j < i; ++j) {
      double* __restrict x = decayed[j];
      for (std::int64_t c = 0; c < K; ++c) x[c] *= alpha[c];
    }
    std::copy(k, k + K, decayed[i]);
    const auto row = static_cast<std::size_t>(i);
    const double beta = std::abs(head_.beta[static_cast<std::size_t>(first_ + i)]),
                 of_beta = head_.beta_error[static_cast<std::size_t>(first_ + i)];
    const double rounded = (1 + of_beta) * (1 + f) * (1 + units_.solve.unit);
    for (std::int64_t j = 0; j <= i; ++j) {
      const double* __restrict x = decayed[j];
      Lanes keys{}, key_errors{}, queries{}, query_errors{};
      for (std::int64_t c = 0; c < K; c += draws_per_batch) {
        const Lanes decay = lanes_at(x, c, K), size = absolute(decay);
        keys += lanes_at(k, c, K) * decay, queries += lanes_at(q, c, K) * decay;
        key_errors += lanes_at(of_key.data(), c, K) * size, query_errors += lanes_at(of_query.data(), c, K) * size;
      }
      const double key = total(keys), key_error = total(key_errors) + of_key_column, query = total(queries) * head_.scale,
                   query_error = total(query_errors) + of_query_column;
      const double sums = key_sum_[row] + key_sum_[static_cast<std::size_t>(j)] + query_sum_[row] + static_cast<double>(K);
      const double flushed = growth * sums <= units_.score.limit ? flush * growth * sums : infinity;
      if (j < i) {
        key_scores_[i][j] = key, key_scores_error_[i][j] = sane(key_error + flushed);
        L_[i][j] = head_.beta[static_cast<std::size_t>(first_ + i)] * key;
        const double of_L = sane(beta * (key_error + flushed) * rounded + (rounded - 1) * std::abs(L_[i][j]) + units_.solve.flush);
        L_error_[i][j] = std::abs(L_[i][j]) + of_L <= units_.solve.limit ? of_L : infinity;
      }
      scores_[i][j] = query;
      scores_error_[i][j] = sane((query_error + flushed) * (1 + units_.operand.unit) + units_.operand.error(std::abs(query) + query_error));
    }
  }
}

void ChunkBound::read_state() {
  const std::int64_t n = n_, K = head_.K, V = head_.V;
  state_size_.resize(K, V);
  state_sum_.assign(static_cast<std::size_t>(V), 0.0), state_largest_ = state_sum_;
  for (std::int64_t c = 0; c < K; ++c)
    for (std::int64_t j = 0; j < V; ++j) {
      const double size = std::abs(state_[c][j]);
      state_size_[c][j] = size;
      state_sum_[static_cast<std::size_t>(j)] += size;
      state_largest_[static_cast<std::size_t>(j)] = std::max(state_largest_[static_cast<std::size_t>(j)], size);
    }
  for (BoundMatrix* m : {&residual_, &Z_, &U_, &Z_slack_, &o_slack_}) m->resize(n, V);
  for (std::int64_t i = 0; i < n; ++i) {
    const double beta = head_.beta[static_cast<std::size_t>(first_ + i)];
    add_rows(Z_[i], 0, K, state_, [&](std::int64_t c) { return key_[i][c]; });
    for (std::int64_t j = 0; j < V; ++j) {
      residual_[i][j] = head_.v[static_cast<std::size_t>((first_ + i) * V + j)] - Z_[i][j];
      Z_[i][j] = beta * residual_[i][j];
      U_[i][j] = Z_[i][j];
    }
    add_rows(U_[i], 0, i, U_, [&](std::int64_t m) { return -L_[i][m]; });
    add_rows(Z_slack_[i], 0, K, state_size_, [&](std::int64_t c) { return key_slack_[i][c]; });
    add_rows(o_slack_[i], 0, K, state_size_, [&](std::int64_t c) { return query_slack_[i][c]; });
  }
}

void ChunkBound::read_wy() {
  const std::int64_t n = n_, K = head_.K, V = head_.V;
  const double u = units_.operand.unit, f = ProvedUnits::single, flush = units_.operand.flush;
  const double used = (1 + u) * (1 + units_.gamma(K + n)) - 1;
  BoundMatrix &W = erasing_, &W_error = erasing_error_;
  // W = T beta kd; key_slack_ holds the product's errors too, which only widens this
  for (BoundMatrix* m : {&right_size_, &right_error_, &solution_size_}) m->resize(n, K);
  W.resize(n, K);
  for (std::int64_t i = 0; i < n; ++i) {
    const double beta = head_.beta[static_cast<std::size_t>(first_ + i)], of_beta = head_.beta_error[static_cast<std::size_t>(first_ + i)];
    const double rounded = (1 + of_beta) * (1 + f) * (1 + u);
    for (std::int64_t c = 0; c < K; ++c) {
      W[i][c] = beta * key_[i][c];
      right_size_[i][c] = std::abs(W[i][c]);
      right_error_[i][c] = std::abs(beta) * (key_slack_[i][c] + flush) * rounded + (rounded - 1) * right_size_[i][c] + 2 * flush;
      if (!(right_size_[i][c] + right_error_[i][c] <= units_.operand.limit)) right_error_[i][c] = infinity;
    }
    add_rows(W[i], 0, i, W, [&](std::int64_t m) { return -L_[i][m]; });
    for (std::int64_t c = 0; c < K; ++c) solution_size_[i][c] = std::abs(W[i][c]);
  }
  inverse_.solve(K, right_size_, right_error_, solution_size_, W_error);
  wy_slack_.resize(n, V);
  wy_norm_.resize(n, 2);
  for (std::int64_t i = 0; i < n; ++i) {
    double sum = 0;
    for (std::int64_t c = 0; c < K; ++c) {
      sum += solution_size_[i][c] + W_error[i][c];
      W_error[i][c] += used * (solution_size_[i][c] + W_error[i][c]);
    }
    add_rows(wy_slack_[i], 0, K, state_size_, [&](std::int64_t c) { return W_error[i][c]; });
    wy_norm_[i][0] = norm_of(W_error[i], K), wy_norm_[i][1] = sum;
  }
  // U0 = T beta V
  BoundMatrix U0;
  for (BoundMatrix* m : {&right_size_, &right_error_, &solution_size_, &U0}) m->resize(n, V);
  for (std::int64_t i = 0; i < n; ++i) {
    const double beta = head_.beta[static_cast<std::size_t>(first_ + i)], of_beta = head_.beta_error[static_cast<std::size_t>(first_ + i)];
    const double rounded = (1 + of_beta) * (1 + f) - 1;
    for (std::int64_t j = 0; j < V; ++j) {
      U0[i][j] = beta * head_.v[static_cast<std::size_t>((first_ + i) * V + j)];
      right_size_[i][j] = std::abs(U0[i][j]);
      const double before = rounded * right_size_[i][j];
      right_error_[i][j] = before + units_.operand.error(right_size_[i][j] + before);
    }
    add_rows(U0[i], 0, i, U0, [&](std::int64_t m) { return -L_[i][m]; });
    for (std::int64_t j = 0; j < V; ++j) solution_size_[i][j] = std::abs(U0[i][j]);
  }
  inverse_.solve(V, right_size_, right_error_, solution_size_, wy_error_);
  wy_size_ = solution_size_;
}

void ChunkBound::bound_update(Order order, const std::vector<double>& error) {
  const std::int64_t n = n_, K = head_.K, V = head_.V;
  const double f = ProvedUnits::single, flush = units_.operand.flush, g = units_.gamma(K + n);
  const double root = std::sqrt(static_cast<double>(K));
  for (BoundMatrix* m : {&right_size_, &right_error_, &solution_size_}) m->resize(n, V);
  for (std::int64_t i = 0; i < n; ++i) {
    const auto row = static_cast<std::size_t>(i);
    const double reach = reach_[row];
    for (std::int64_t j = 0; j < V; ++j) solution_size_[i][j] = std::abs(U_[i][j]) + reach * error[static_cast<std::size_t>(j)];
  }
  if (order == Order::wy) {
    update_error_.resize(n, V);
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t j = 0; j < V; ++j) {
        const double e = error[static_cast<std::size_t>(j)];
        const double flushed = flush * (state_sum_[static_cast<std::size_t>(j)] + root * e + wy_norm_[i][1] + 2 * static_cast<double>(K));
        const double before = wy_error_[i][j] + wy_slack_[i][j] + wy_norm_[i][0] * e + g * (wy_size_[i][j] + wy_error_[i][j]) + flushed;
        update_error_[i][j] = sane((before + units_.operand.error(solution_size_[i][j] + before)) * ProvedUnits::up);
      }
    return;
  }
  for (std::int64_t i = 0; i < n; ++i) {
    const auto row = static_cast<std::size_t>(i), t = static_cast<std::size_t>(first_ + i);
    const double beta = std::abs(head_.beta[t]), rounded = (1 + head_.beta_error[t]) * (1 + f) * (1 + f);
    for (std::int64_t j = 0; j < V; ++j) {
      const double e = error[static_cast<std::size_t>(j)],
                   v = std::abs(head_.v[t * static_cast<std::size_t>(V) + static_cast<std::size_t>(j)]);
      const double flushed =
          flush * ((1 + key_sum_[row]) * (state_sum_[static_cast<std::size_t>(j)] + root * e) + key_sum_[row] + 2 * static_cast<double>(K));
      const double of_residual = sane(Z_slack_[i][j] + slack_norm_[row] * e + g * v + flushed);
      const double size = std::abs(Z_[i][j]) + beta * key_norm_[row] * e;
      const double before = beta * rounded * of_residual + (rounded - 1) * size;
      right_size_[i][j] = size;
      right_error_[i][j] = sane(before + units_.operand.error(size + before));
    }
  }
  inverse_.solve(V, right_size_, right_error_, solution_size_, update_error_);
}

void ChunkBound::bound(Order order, bool stored, std::vector<double>& error, double* token, double* row) {
  const std::int64_t n = n_, K = head_.K, V = head_.V;
  bound_update(order, error);
  const double flush = units_.operand.flush, g = units_.gamma(K + n), root = std::sqrt(static_cast<double>(K));
  const auto at = [](std::int64_t j) { return static_cast<std::size_t>(j); };
  for (std::int64_t j = 0; j < V; ++j)
    if (!(state_largest_[at(j)] + error[at(j)] <= units_.operand.limit)) error[at(j)] = infinity;
  BoundMatrix line;
  line.resize(1, V);
  for (std::int64_t i = 0; i < n; ++i) {
    std::copy(o_slack_[i], o_slack_[i] + V, line[0]);
    add_rows(line[0], 0, i + 1, update_error_, [&](std::int64_t m) { return (1 + g) * (std::abs(scores_[i][m]) + scores_error_[i][m]); });
    add_rows(line[0], 0, i + 1, solution_size_,
             [&](std::int64_t m) { return scores_error_[i][m] + g * (std::abs(scores_[i][m]) + scores_error_[i][m]); });
    double worst = 0;
    for (std::int64_t j = 0; j < V; ++j) {
      const double e = error[at(j)];
      const double flushed =
          flush * ((1 + query_sum_[at(i)]) * (state_sum_[at(j)] + root * e) + query_sum_[at(i)] + 2 * static_cast<double>(K + n));
      worst = std::max(worst, sane((line[0][j] + (query_norm_[at(i)] + read_[at(i)]) * e + flushed) * ProvedUnits::up));
    }
    token[i] = std::max(token[i], worst);
  }
  const Elementary kept = stored ? units_.state : Elementary{ProvedUnits::single, 0x1p-126, largest(Format::fp32)};
  const double of_whole = *std::max_element(whole_slack_.begin(), whole_slack_.end());
  const double passed = contraction_ * (1 + kept.unit) + of_whole * (1 + kept.unit);
  std::vector<double> squares(at(V), 0.0);
  next_.resize(K, V);
  for (std::int64_t c = 0; c < K; ++c) {
    const double whole = whole_[at(c)], of_c = whole_slack_[at(c)];
    double* __restrict next = next_[c];
    double* __restrict local = line[0];
    for (std::int64_t j = 0; j < V; ++j) next[j] = whole * state_[c][j], local[j] = of_c * state_size_[c][j];
    add_rows(next, 0, n, U_, [&](std::int64_t i) { return remaining_[i][c]; });
    add_rows(local, 0, n, update_error_, [&](std::int64_t i) { return remaining_size_[i][c]; });
    add_rows(local, 0, n, solution_size_, [&](std::int64_t i) { return remaining_slack_[i][c]; });
    double worst = 0;
    for (std::int64_t j = 0; j < V; ++j) {
      // an element of the old state errs by no more than its column
      const double e = error[at(j)], before = local[j] + 2 * flush * (1 + std::abs(state_[c][j]) + e);
      local[j] = sane((before + kept.error(std::abs(next[j]) + before)) * ProvedUnits::up);
      worst = std::max(worst, sane((local[j] + passed * e) * ProvedUnits::up));
      squares[at(j)] += local[j] * local[j];
    }
    row[c] = std::max(row[c], worst);
  }
  for (std::int64_t j = 0; j < V; ++j) error[at(j)] = sane((passed * error[at(j)] + std::sqrt(squares[at(j)])) * ProvedUnits::up);
}

void ChunkBound::leave() { std::swap(state_, next_); }

} // namespace kdacheck
