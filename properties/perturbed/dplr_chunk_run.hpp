#pragma once
// The chunkwise form of the general rule S_t = (Diag(alpha_t) - a_t b_t^T) S_{t-1} + k_t v_t^T, perturbed.
//
// With w_t = S_{t-1}^T b_t, G the inclusive and G- the exclusive in-chunk sums of log decay:
//   L_ij = b_i . e^{G-_i - G_j} a_j,  M_ij = b_i . e^{G-_i - G_j} k_j  (i > j)     Aqk_ij, Aqa_ij with q, G  (i >= j)
//   (I + L) w = bd S + M v,  bd = b e^{G-}     O = qd S + Aqk v - Aqa w     S' = Diag(e^{G_C}) S + kr^T v - ar^T w

#include "chunk_sites.hpp"

#include <cmath>
#include <cstdint>
#include <vector>

namespace kdacheck {

template <class Run> class DplrChunkRun : protected ChunkSites<Run> {
  using Base = ChunkSites<Run>;

protected:
  using Base::at, Base::head_, Base::roundings_, Base::run_, Base::log_error_, Base::state_, Base::inverse_;

public:
  using Number = typename Run::Number;
  using Base::Base;

  const std::vector<Number>& output() const { return output_; } ///< [n,V] of the last chunk

  /// Runs one chunk: `state` [K,V] moves on, output() holds its rows of o. `wy`: T bd and T M v are formed first.
  void advance(const ChunkFactors& f, Order order, Run& run, std::vector<Number>& state) {
    run_ = &run;
    state_.swap(state);
    read_memory(f, order);
    write(f.n);
    for (Number& x : read_) x = -x;
    this->carry(f, {{&key_remaining_, &value_}, {&second_remaining_, &read_}});
    state_.swap(state);
  }

protected:
  /// Everything up to w.
  void read_memory(const ChunkFactors& f, Order order) {
    this->sum_log_decay(f);
    this->normalise(key_, head_.k, f, Site::key);
    this->normalise(query_, head_.q, f, Site::query);
    decay_operands(f);
    score_all(f);
    this->invert(f.n);
    if (order == Order::wy) {
      read_wy(f.n);
    } else {
      read_state_first(f.n);
    }
  }

  static Number zero(std::int64_t, std::int64_t) { return Number{}; }

  void decay_operands(const ChunkFactors& f) {
    const std::int64_t n = f.n, K = head_.K, V = head_.V;
    for (auto* rows : {&a_, &b_, &b_decayed_, &query_decayed_, &key_remaining_, &second_remaining_})
      rows->resize(static_cast<std::size_t>(n * K));
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t c = 0; c < K; ++c) {
        const std::size_t entry = at(i, c, K);
        const double G = f.G[entry], before = this->log_decay(f, i, c, true);
        a_[entry] = Number{} + head_.a[at(f.first + i, c, K)];
        b_[entry] = Number{} + head_.b[at(f.first + i, c, K)];
        query_[entry] *= head_.scale;
        const Number in = this->decayed(f.in[entry], log_error_[entry], G);
        const Number in_before = this->decayed(f.before[entry], this->log_error(i, c, true), before);
        const Number out = this->decayed(f.out[entry], log_error_[at(n - 1, c, K)] - log_error_[entry], f.G[at(n - 1, c, K)] - G);
        b_decayed_[entry] = run_->round(roundings_.operand, Site::key_decayed, b_[entry] * in_before);
        query_decayed_[entry] = run_->round(roundings_.operand, Site::query_decayed, query_[entry] * in);
        key_remaining_[entry] = run_->round(roundings_.operand, Site::key_remaining, key_[entry] * out);
        second_remaining_[entry] = run_->round(roundings_.operand, Site::second_remaining, a_[entry] * out);
      }
    value_.resize(static_cast<std::size_t>(n * V));
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t j = 0; j < V; ++j) {
        const double x = head_.v[at(f.first + i, j, V)];
        value_[at(i, j, V)] = head_.exact_values ? Number{} + x : run_->round(roundings_.operand, Site::weighted_value, Number{} + x);
      }
  }

  void score_all(const ChunkFactors& f) {
    const std::int64_t n = f.n;
    for (auto* matrix : {&this->triangle_, &mixed_, &query_key_, &query_a_}) matrix->assign(static_cast<std::size_t>(n * n), Number{});
    this->score(f, {{b_, true, true, Site::score_row_key}, {query_, false, false, Site::score_row_query}},
                {{a_, Site::score_column}, {key_, Site::second_score_column}},
                [&](std::size_t row, std::size_t column, std::int64_t i, std::int64_t j, Number x) {
                  if (row == 0 && column == 0) {
                    this->triangle_[at(i, j, n)] = run_->round(roundings_.solve, Site::triangle, x);
                  } else {
                    const Site site = row == 0 ? Site::weighted_key : column == 0 ? Site::second_scores : Site::scores;
                    (row == 0 ? mixed_ : column == 0 ? query_a_ : query_key_)[at(i, j, n)] = run_->round(roundings_.operand, site, x);
                  }
                });
  }

  /// w = T (bd S + M v).
  void read_state_first(std::int64_t n) {
    const std::int64_t V = head_.V;
    residual_.resize(static_cast<std::size_t>(n * V)), read_.resize(residual_.size());
    this->times_state(b_decayed_, n, zero, [&](std::int64_t i, std::int64_t j, Number x) { residual_[at(i, j, V)] = x; });
    this->triangular(
        mixed_, value_, n, V, [&](std::int64_t i, std::int64_t j) { return residual_[at(i, j, V)]; },
        [&](std::int64_t i, std::int64_t j, Number x) { residual_[at(i, j, V)] = run_->round(roundings_.operand, Site::residual, x); });
    this->triangular(inverse_, residual_, n, V, zero, [&](std::int64_t i, std::int64_t j, Number x) {
      read_[at(i, j, V)] = run_->round(roundings_.operand, Site::update, x);
    });
  }

  /// w = (T bd) S + T (M v).
  void read_wy(std::int64_t n) {
    const std::int64_t K = head_.K, V = head_.V;
    wy_key_.resize(static_cast<std::size_t>(n * K));
    residual_.resize(static_cast<std::size_t>(n * V)), read_.resize(residual_.size());
    this->triangular(inverse_, b_decayed_, n, K, zero, [&](std::int64_t i, std::int64_t c, Number x) {
      wy_key_[at(i, c, K)] = run_->round(roundings_.operand, Site::wy_key, x);
    });
    this->triangular(mixed_, value_, n, V, zero, [&](std::int64_t i, std::int64_t j, Number x) {
      residual_[at(i, j, V)] = run_->round(roundings_.operand, Site::residual, x);
    });
    this->triangular(inverse_, residual_, n, V, zero, [&](std::int64_t i, std::int64_t j, Number x) {
      read_[at(i, j, V)] = run_->round(roundings_.operand, Site::wy_value, x);
    });
    this->times_state(
        wy_key_, n, [&](std::int64_t i, std::int64_t j) { return read_[at(i, j, V)]; },
        [&](std::int64_t i, std::int64_t j, Number x) { read_[at(i, j, V)] = run_->round(roundings_.operand, Site::update, x); });
  }

  void write(std::int64_t n) {
    const std::int64_t V = head_.V;
    output_.resize(static_cast<std::size_t>(n * V));
    this->times_state(query_decayed_, n, zero, [&](std::int64_t i, std::int64_t j, Number x) { output_[at(i, j, V)] = x; });
    this->triangular(
        query_key_, value_, n, V, [&](std::int64_t i, std::int64_t j) { return output_[at(i, j, V)]; },
        [&](std::int64_t i, std::int64_t j, Number x) { output_[at(i, j, V)] = x; });
    this->triangular(
        query_a_, read_, n, V, [&](std::int64_t i, std::int64_t j) { return -output_[at(i, j, V)]; },
        [&](std::int64_t i, std::int64_t j, Number x) { output_[at(i, j, V)] = -x; });
  }

  std::vector<Number> output_, key_, query_, a_, b_, value_;
  std::vector<Number> b_decayed_, query_decayed_, key_remaining_, second_remaining_;
  std::vector<Number> mixed_, query_key_, query_a_, residual_, wy_key_, read_;
};

} // namespace kdacheck
