// Running error bound of the general rule in chunks. Notation, decay, scores, inverse and solve are those of
// proved_chunk.cpp. With w_t = S_{t-1}^T b_t, G- = G - g the exclusive sums:
//
//   L_ij = b_i . e^{G-_i - G_j} a_j,  M_ij = b_i . e^{G-_i - G_j} k_j  (i > j)      Aqk, Aqa with q and G  (i >= j)
//   (I + L) w = R = bd S + M v,  bd = b e^{G-}     O = qd S + Aqk v - Aqa w     S' = Diag(e^{G_C}) S + kr^T v - ar^T w
//
// 1 Old errors pass at the norms of the steps: |D - a b^T|_2^2 <= d_max^2 + lambda, where lambda is the largest eigenvalue of
//   |a|^2 b b^T - (D a) b^T - b (D a)^T, that of a 2x2 matrix with trace |a|^2 |b|^2 - 2 (Da).b and determinant
//   (Da.b)^2 - |Da|^2 |b|^2. Hence |w~_i - w_i| <= |b_i| prod_{t<i} n_t e.
// 2 All four matrices have operands of the scores; M, Aqk, Aqa and v are rounded as operands, L as the solve's.
// 3 Orders: residual_first rounds R; wy forms T bd and T (M v) and adds (T bd) S.
// 4 v and w enter O and S' as two sums: where they nearly cancel, as in KDA, |v| + |w| stands for |v - w|.
// KDA is a = beta k, b = alpha k, key beta k, each with its own rounding: `error` of Rows.

#include "proved_general.hpp"

#include "../cases/portable_math.hpp"
#include "../perturbed/chunk_factors.hpp"

#include <algorithm>

namespace kdacheck {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

double dot(const double* x, const double* y, std::int64_t n) {
  double sum = 0;
  for (std::int64_t c = 0; c < n; ++c) sum += x[c] * y[c];
  return sum;
}

} // namespace

GeneralBound::GeneralBound(const ProvedUnits& units, const Head& head, double gate_floor)
    : units_(units), head_(head), gate_floor_(gate_floor),
      norm_(head.normalised ? portable::log1p(units.norm(head.K)) + portable::log1p(units.operand.unit) : 0) {
  state_.columns = head.V;
  state_.data = head.state;
}

void GeneralBound::enter(std::int64_t first, std::int64_t n, bool with_wy) {
  first_ = first, n_ = n;
  read_rows();
  read_decay();
  read_scores();
  inverse_.enter(units_, n, L_, L_error_);
  read_state();
  if (with_wy) read_wy();
}

void GeneralBound::read_rows() {
  const std::int64_t n = n_, K = head_.K;
  for (Rows* rows : {&q_, &k_, &a_, &b_}) rows->value.resize(n, K), rows->error.resize(n, K), rows->small.resize(n, K);
  const double f = portable::log1p(ProvedUnits::single);
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t c = 0; c < K; ++c) {
      const auto t = static_cast<std::size_t>(first_ + i), entry = t * static_cast<std::size_t>(K) + static_cast<std::size_t>(c);
      q_.value[i][c] = head_.scale * head_.q[entry], q_.error[i][c] = norm_ + 2 * f, q_.small[i][c] = small(head_.q[entry]);
      k_.small[i][c] = small(head_.k[entry]);
      if (head_.dplr) {
        k_.value[i][c] = head_.k[entry], k_.error[i][c] = norm_;
        a_.value[i][c] = head_.a[entry], b_.value[i][c] = head_.b[entry];
        continue;
      }
      a_.small[i][c] = b_.small[i][c] = k_.small[i][c];
      const double g = head_.g[entry], k = head_.k[entry];
      a_.value[i][c] = k_.value[i][c] = head_.beta[t] * k;
      a_.error[i][c] = k_.error[i][c] = norm_ + portable::log1p(head_.beta_error[t]) + f;
      b_.value[i][c] = portable::exp(g) * k;
      b_.error[i][c] = norm_ + ProvedUnits::second_order * head_.gate_error[entry] + gate_floor_ + ProvedUnits::argument * std::abs(g) +
                       portable::log1p(units_.exponential) + f;
    }
}

void GeneralBound::read_decay() {
  const std::int64_t n = n_, K = head_.K;
  for (BoundMatrix* m : {&alpha_, &G_, &D_, &read_key_, &read_slack_, &query_slack_, &key_remaining_, &a_remaining_, &key_slack_, &a_size_,
                         &a_slack_, &query_decayed_})
    m->resize(n, K);
  for (auto* rows : {&step_, &reach_, &seen_, &read_norm_, &slack_norm_, &query_norm_, &sum_})
    rows->assign(static_cast<std::size_t>(n), 0.0);
  whole_.assign(static_cast<std::size_t>(K), 1.0);
  whole_slack_ = whole_;
  const double f = portable::log1p(ProvedUnits::single), exponential = portable::log1p(units_.exponential),
               operand = portable::log1p(units_.operand.unit);
  const double product = exponential + f + 2 * operand + portable::log1p(units_.gamma(K + n + 1));
  const double carried = exponential + f + 2 * operand + portable::log1p(units_.gamma(2 * n + 1));
  const double kept = exponential + portable::log1p(units_.gamma(2 * n + 1));
  std::vector<double> resolving(static_cast<std::size_t>(K), 0.0), decayed(resolving);
  double reach = 1;
  for (std::int64_t i = 0; i < n; ++i) {
    const auto t = static_cast<std::size_t>(first_ + i), row = static_cast<std::size_t>(i);
    const double x = static_cast<double>(i + 1) * units_.cumsum, of_sum = i == 0 ? 0.0 : x < 1 ? x / (1 - x) : infinity;
    double largest_alpha = 0;
    for (std::int64_t c = 0; c < K; ++c) {
      const std::size_t entry = t * static_cast<std::size_t>(K) + static_cast<std::size_t>(c), channel = static_cast<std::size_t>(c);
      const double g = head_.g[entry], alpha = portable::exp(g), before = i > 0 ? G_[i - 1][c] : 0.0,
                   error_before = i > 0 ? D_[i - 1][c] : 0.0;
      alpha_[i][c] = alpha;
      G_[i][c] = before + g;
      resolving[channel] += ProvedUnits::second_order * (head_.gate_error[entry] + head_.sum_error[entry]) + gate_floor_;
      D_[i][c] = resolving[channel] + of_sum * std::abs(G_[i][c]);
      read_key_[i][c] = b_.value[i][c] * whole_[channel];
      read_slack_[i][c] = std::abs(read_key_[i][c]) *
                          grown(error_before + ProvedUnits::argument * std::abs(before) + product + b_.error[i][c] + b_.small[i][c]);
      whole_[channel] *= alpha;
      query_decayed_[i][c] = q_.value[i][c] * whole_[channel];
      query_slack_[i][c] = std::abs(q_.value[i][c]) * whole_[channel] *
                           grown(D_[i][c] + ProvedUnits::argument * std::abs(G_[i][c]) + product + q_.error[i][c] + q_.small[i][c]);
      decayed[channel] = alpha * a_.value[i][c];
      largest_alpha = std::max(largest_alpha, alpha);
      sum_[row] += std::abs(q_.value[i][c]) + std::abs(k_.value[i][c]) + std::abs(a_.value[i][c]) + std::abs(b_.value[i][c]);
    }
    if (!(sum_[row] <= units_.operand.limit))
      std::fill(read_slack_[i], read_slack_[i] + K, infinity), std::fill(query_slack_[i], query_slack_[i] + K, infinity);
    read_norm_[row] = norm_of(read_key_[i], K), slack_norm_[row] = norm_of(read_slack_[i], K),
    query_norm_[row] = norm_of(query_slack_[i], K);
    reach_[row] = norm_of(b_.value[i], K) * reach;
    const double xx = dot(decayed.data(), decayed.data(), K), xb = dot(decayed.data(), b_.value[i], K),
                 bb = dot(b_.value[i], b_.value[i], K);
    const double trace = dot(a_.value[i], a_.value[i], K) * bb - 2 * xb, determinant = std::max(0.0, xx * bb - xb * xb);
    const double eigenvalue = 0.5 * (trace + std::sqrt(trace * trace + 4 * determinant));
    step_[row] = std::sqrt(largest_alpha * largest_alpha + std::max(0.0, eigenvalue));
    reach *= step_[row];
    seen_[row] = norm_of(q_.value[i], K) * reach;
  }
  contraction_ = reach;
  for (std::int64_t c = 0; c < K; ++c) {
    const double end = G_[n - 1][c], end_error = D_[n - 1][c];
    const auto channel = static_cast<std::size_t>(c);
    whole_slack_[channel] = whole_[channel] * grown(end_error + ProvedUnits::argument * std::abs(end) + kept);
    double after = 1;
    for (std::int64_t i = n - 1; i >= 0; --i) {
      const double log_error = end_error + D_[i][c] + ProvedUnits::argument * std::abs(end - G_[i][c]) + carried;
      key_remaining_[i][c] = k_.value[i][c] * after, a_remaining_[i][c] = a_.value[i][c] * after;
      const double flush = units_.operand.flush * (1 + std::abs(k_.value[i][c]) + std::abs(a_.value[i][c]));
      key_slack_[i][c] = std::abs(key_remaining_[i][c]) * grown(log_error + k_.error[i][c] + k_.small[i][c]) + flush;
      a_slack_[i][c] = std::abs(a_remaining_[i][c]) * grown(log_error + a_.error[i][c] + a_.small[i][c]) + flush;
      a_size_[i][c] = std::abs(a_remaining_[i][c]) + a_slack_[i][c];
      after *= alpha_[i][c];
    }
  }
}

void GeneralBound::read_scores() {
  const std::int64_t n = n_, K = head_.K;
  for (BoundMatrix* m : {&L_, &L_error_, &M_, &M_error_, &query_key_, &query_key_error_, &query_a_, &query_a_error_}) m->resize(n, n);
  pair_log_.resize(n, K), growth_.assign(static_cast<std::size_t>(n), 1.0);
  const double f = portable::log1p(ProvedUnits::single);
  const double pair = 2 * (portable::log1p(units_.exponential) + f + portable::log1p(units_.score.unit)) + portable::log1p(units_.gamma(K));
  const double used = (1 + units_.gamma(K + 2 * n)) * (1 + units_.operand.unit) - 1;
  of_columns_ = 0;
  for (const BoundMatrix* m : {&a_.error, &k_.error})
    of_columns_ = std::max(of_columns_, *std::max_element(m->data.begin(), m->data.end()));
  std::vector<double> of_b(static_cast<std::size_t>(K)), of_query(of_b);
  BoundMatrix &keys = scratch_, as; // row j: k_j, a_j times e^{G_i - G_j}
  keys.resize(n, K), as.resize(n, K);
  const auto sums = [&](const double* row, const std::vector<double>& row_error, const double* column, double& sum, double& error) {
    Lanes products{}, errors{};
    for (std::int64_t c = 0; c < K; c += draws_per_batch) {
      const Lanes here = lanes_at(column, c, K);
      products += lanes_at(row, c, K) * here, errors += lanes_at(row_error.data(), c, K) * absolute(here);
    }
    sum = total(products), error = total(errors);
  };
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int64_t start = i / score_block * score_block, end = std::min(start + score_block, n) - 1;
    double growth = 0, b_sum = 0, query_sum = 0; // errors included
    for (std::int64_t c = 0; c < K; ++c) {
      const double before = start > 0 ? std::abs(G_[start - 1][c]) : 0.0;
      const double farthest = std::min(std::abs(G_[end][c]), std::abs(G_[i][c]) + ProvedUnits::largest_growth);
      pair_log_[i][c] = 2 * (D_[i][c] + ProvedUnits::argument * farthest);
      const double log_error = pair_log_[i][c] + pair + of_columns_;
      growth = std::max(growth, std::min(std::abs(G_[end][c]) - before, ProvedUnits::largest_growth));
      of_b[static_cast<std::size_t>(c)] = std::abs(b_.value[i][c]) * grown(log_error + b_.error[i][c] + b_.small[i][c]);
      of_query[static_cast<std::size_t>(c)] = std::abs(q_.value[i][c]) * grown(log_error + q_.error[i][c] + q_.small[i][c]);
      b_sum += std::abs(b_.value[i][c]) + of_b[static_cast<std::size_t>(c)];
      query_sum += std::abs(q_.value[i][c]) + of_query[static_cast<std::size_t>(c)];
    }
    const auto of_norm = [&](std::int64_t j, double row) { return small_column(j) > 0 ? small_column(j) * row : 0; };
    growth_[static_cast<std::size_t>(i)] = growth = portable::exp(growth);
    const auto flushed = [&](std::int64_t j) {
      const double size = growth * (sum_[static_cast<std::size_t>(i)] + sum_[static_cast<std::size_t>(j)] + static_cast<double>(K));
      return size <= units_.score.limit ? units_.score.flush * size : infinity;
    };
    for (std::int64_t j = 0; j < i; ++j) {
      double error = 0;
      sums(b_.value[i], of_b, as[j], L_[i][j], error);
      error += flushed(j) + of_norm(j, b_sum);
      L_error_[i][j] = sane(error * (1 + units_.solve.unit) + units_.solve.unit * std::abs(L_[i][j]) + units_.solve.flush);
      if (!(std::abs(L_[i][j]) + L_error_[i][j] <= units_.solve.limit)) L_error_[i][j] = infinity;
      sums(b_.value[i], of_b, keys[j], M_[i][j], error);
      error += flushed(j) + of_norm(j, b_sum);
      M_error_[i][j] = sane(error + units_.operand.error(std::abs(M_[i][j]) + error));
      for (std::int64_t c = 0; c < K; ++c) as[j][c] *= alpha_[i][c], keys[j][c] *= alpha_[i][c];
    }
    std::copy(a_.value[i], a_.value[i] + K, as[i]);
    std::copy(k_.value[i], k_.value[i] + K, keys[i]);
    for (std::int64_t j = 0; j <= i; ++j) {
      double value = 0, error = 0;
      sums(q_.value[i], of_query, keys[j], value, error);
      error += flushed(j) + of_norm(j, query_sum);
      error += units_.operand.error(std::abs(value) + error);
      query_key_[i][j] = value;
      query_key_error_[i][j] = sane(error + used * (std::abs(value) + error));
      sums(q_.value[i], of_query, as[j], value, error);
      error += flushed(j) + of_norm(j, query_sum);
      query_a_[i][j] = value;
      query_a_error_[i][j] = sane(error + units_.operand.error(std::abs(value) + error));
    }
  }
}

void GeneralBound::read_state() {
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
  BoundMatrix v;
  for (BoundMatrix* m : {&v, &mixed_, &mixed_size_, &mixed_error_, &right_, &memory_, &slack_, &o_slack_, &value_size_}) m->resize(n, V);
  const double used = (1 + units_.gamma(K + n)) * (1 + units_.operand.unit) - 1;
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j < V; ++j) {
      v[i][j] = head_.v[static_cast<std::size_t>((first_ + i) * V + j)];
      const double size = std::abs(v[i][j]); // u times it is the error of v as an operand, flush included
      value_size_[i][j] = size <= units_.operand.limit ? size + units_.operand.flush / units_.operand.unit : infinity;
    }
  for (std::int64_t i = 0; i < n; ++i) {
    add_rows(mixed_[i], 0, i, v, [&](std::int64_t m) { return M_[i][m]; });
    add_rows(mixed_error_[i], 0, i, value_size_,
             [&](std::int64_t m) { return M_error_[i][m] + used * (std::abs(M_[i][m]) + M_error_[i][m]); });
    std::copy(mixed_[i], mixed_[i] + V, right_[i]);
    add_rows(right_[i], 0, K, state_, [&](std::int64_t c) { return read_key_[i][c]; });
    std::copy(right_[i], right_[i] + V, memory_[i]);
    add_rows(memory_[i], 0, i, memory_, [&](std::int64_t m) { return -L_[i][m]; });
    for (std::int64_t j = 0; j < V; ++j) mixed_size_[i][j] = std::abs(mixed_[i][j]);
    add_rows(slack_[i], 0, K, state_size_, [&](std::int64_t c) { return read_slack_[i][c]; });
    add_rows(o_slack_[i], 0, K, state_size_, [&](std::int64_t c) { return query_slack_[i][c]; });
  }
}

void GeneralBound::read_wy() {
  const std::int64_t n = n_, K = head_.K, V = head_.V;
  const double used = (1 + units_.operand.unit) * (1 + units_.gamma(K + n)) - 1;
  BoundMatrix &W = erasing_, &W_error = erasing_error_, mixed;
  for (BoundMatrix* m : {&right_size_, &right_error_, &solution_size_, &W}) m->resize(n, K);
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t c = 0; c < K; ++c) {
      W[i][c] = read_key_[i][c];
      right_size_[i][c] = std::abs(W[i][c]);
      right_error_[i][c] = read_slack_[i][c] + units_.operand.flush; // holds the product's errors too, which only widens it
    }
    add_rows(W[i], 0, i, W, [&](std::int64_t m) { return -L_[i][m]; });
    for (std::int64_t c = 0; c < K; ++c) solution_size_[i][c] = std::abs(W[i][c]);
  }
  inverse_.solve(K, right_size_, right_error_, solution_size_, W_error);
  wy_slack_.resize(n, V), wy_norm_.resize(n, 2);
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t c = 0; c < K; ++c) {
      wy_norm_[i][1] += solution_size_[i][c] + W_error[i][c];
      W_error[i][c] += used * (solution_size_[i][c] + W_error[i][c]);
    }
    add_rows(wy_slack_[i], 0, K, state_size_, [&](std::int64_t c) { return W_error[i][c]; });
    wy_norm_[i][0] = norm_of(W_error[i], K);
  }
  mixed = mixed_, right_error_ = mixed_error_, wy_size_.resize(n, V);
  for (std::int64_t i = 0; i < n; ++i) {
    add_rows(mixed[i], 0, i, mixed, [&](std::int64_t m) { return -L_[i][m]; });
    for (std::int64_t j = 0; j < V; ++j) {
      wy_size_[i][j] = std::abs(mixed[i][j]);
      right_error_[i][j] = sane(right_error_[i][j] + units_.operand.error(mixed_size_[i][j] + right_error_[i][j]));
    }
  }
  inverse_.solve(V, mixed_size_, right_error_, wy_size_, wy_error_);
}

void GeneralBound::bound_memory(Order order, const std::vector<double>& error) {
  const std::int64_t n = n_, K = head_.K, V = head_.V;
  const double flush = units_.operand.flush, g = units_.gamma(K + n), root = std::sqrt(static_cast<double>(K));
  for (BoundMatrix* m : {&right_size_, &right_error_, &solution_size_}) m->resize(n, V);
  if (order == Order::wy) memory_error_.resize(n, V);
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j < V; ++j) {
      const auto row = static_cast<std::size_t>(i), column = static_cast<std::size_t>(j);
      const double e = error[column], states = state_sum_[column] + root * e;
      solution_size_[i][j] = std::abs(memory_[i][j]) + reach_[row] * e;
      if (order == Order::wy) {
        const double flushed = flush * (states + wy_norm_[i][1] + 2 * static_cast<double>(K));
        const double before = wy_error_[i][j] + wy_slack_[i][j] + wy_norm_[i][0] * e + g * (wy_size_[i][j] + wy_error_[i][j]) + flushed;
        memory_error_[i][j] = sane((before + units_.operand.error(solution_size_[i][j] + before)) * ProvedUnits::up);
        continue;
      }
      right_size_[i][j] = std::abs(right_[i][j]) + read_norm_[row] * e;
      const double flushed = flush * ((1 + sum_[row]) * (1 + states) + 2 * static_cast<double>(K + n));
      const double before = sane(slack_[i][j] + slack_norm_[row] * e + mixed_error_[i][j] + flushed);
      right_error_[i][j] = sane(before + units_.operand.error(right_size_[i][j] + before));
    }
  if (order != Order::wy) inverse_.solve(V, right_size_, right_error_, solution_size_, memory_error_);
}

void GeneralBound::bound(Order order, bool stored, std::vector<double>& error, double* token, double* row) {
  const std::int64_t n = n_, K = head_.K, V = head_.V;
  bound_memory(order, error);
  const double flush = units_.operand.flush, g = units_.gamma(K + 2 * n), root = std::sqrt(static_cast<double>(K));
  const auto at = [](std::int64_t j) { return static_cast<std::size_t>(j); };
  for (std::int64_t j = 0; j < V; ++j)
    if (!(state_largest_[at(j)] + error[at(j)] <= units_.operand.limit)) error[at(j)] = infinity;
  BoundMatrix line;
  line.resize(1, V);
  for (std::int64_t i = 0; i < n; ++i) {
    std::copy(o_slack_[i], o_slack_[i] + V, line[0]);
    add_rows(line[0], 0, i + 1, value_size_, [&](std::int64_t m) { return query_key_error_[i][m]; });
    add_rows(line[0], 0, i + 1, memory_error_, [&](std::int64_t m) { return (1 + g) * (std::abs(query_a_[i][m]) + query_a_error_[i][m]); });
    add_rows(line[0], 0, i + 1, solution_size_,
             [&](std::int64_t m) { return query_a_error_[i][m] + g * (std::abs(query_a_[i][m]) + query_a_error_[i][m]); });
    double worst = 0;
    for (std::int64_t j = 0; j < V; ++j) {
      const double e = error[at(j)];
      const double flushed = flush * ((1 + sum_[at(i)]) * (1 + state_sum_[at(j)] + root * e) + 2 * static_cast<double>(K + n));
      worst = std::max(worst, sane((line[0][j] + (query_norm_[at(i)] + seen_[at(i)]) * e + flushed) * ProvedUnits::up));
    }
    token[i] = std::max(token[i], worst);
  }
  const Elementary kept = stored ? units_.state : Elementary{ProvedUnits::single, 0x1p-126, largest(Format::fp32)};
  const double passed = (contraction_ + *std::max_element(whole_slack_.begin(), whole_slack_.end())) * (1 + kept.unit);
  std::vector<double> squares(at(V), 0.0);
  next_.resize(K, V);
  for (std::int64_t c = 0; c < K; ++c) {
    double* __restrict next = next_[c];
    double* __restrict local = line[0];
    for (std::int64_t j = 0; j < V; ++j) next[j] = whole_[at(c)] * state_[c][j], local[j] = whole_slack_[at(c)] * state_size_[c][j];
    for (std::int64_t i = 0; i < n; ++i) {
      const double* v = head_.v.data() + (first_ + i) * V;
      for (std::int64_t j = 0; j < V; ++j) next[j] += key_remaining_[i][c] * v[j];
    }
    add_rows(next, 0, n, memory_, [&](std::int64_t i) { return -a_remaining_[i][c]; });
    add_rows(local, 0, n, value_size_, [&](std::int64_t i) { return key_slack_[i][c]; });
    add_rows(local, 0, n, memory_error_, [&](std::int64_t i) { return a_size_[i][c]; });
    add_rows(local, 0, n, solution_size_, [&](std::int64_t i) { return a_slack_[i][c]; });
    double worst = 0;
    for (std::int64_t j = 0; j < V; ++j) {
      const double e = error[at(j)], before = local[j] + 2 * flush * (1 + std::abs(state_[c][j]) + e);
      local[j] = sane((before + kept.error(std::abs(next[j]) + before)) * ProvedUnits::up);
      worst = std::max(worst, sane((local[j] + passed * e) * ProvedUnits::up));
      squares[at(j)] += local[j] * local[j];
    }
    row[c] = std::max(row[c], worst);
  }
  for (std::int64_t j = 0; j < V; ++j) error[at(j)] = sane((passed * error[at(j)] + std::sqrt(squares[at(j)])) * ProvedUnits::up);
}

void GeneralBound::leave() { std::swap(state_, next_); }

} // namespace kdacheck
