#pragma once
// The chunkwise form of KDA (design.md section 1), perturbed.

#include "chunk_sites.hpp"

#include <cstdint>
#include <vector>

namespace kdacheck {

template <class Run> class KdaChunkRun : protected ChunkSites<Run> {
  using Base = ChunkSites<Run>;

protected:
  using Base::at, Base::head_, Base::roundings_, Base::run_, Base::log_error_, Base::state_, Base::inverse_;

public:
  using Number = typename Run::Number;

  using Base::Base;

  const std::vector<Number>& output() const { return output_; } ///< [n,V] of the last chunk

  /// Runs one chunk: `state` [K,V] moves on, output() holds its rows of o.
  void advance(const ChunkFactors& f, Order order, Run& run, std::vector<Number>& state) {
    run_ = &run;
    state_.swap(state);
    update(f, order);
    write(f);
    this->carry(f, {{&key_remaining_, &update_}});
    state_.swap(state);
  }

protected:
  /// Everything up to U.
  void update(const ChunkFactors& f, Order order) {
    this->sum_log_decay(f);
    this->normalise(key_, head_.k, f, Site::key);
    this->normalise(query_, head_.q, f, Site::query);
    decay_operands(f);
    score_keys(f);
    this->invert(f.n);
    if (order == Order::wy) {
      update_wy(f);
    } else {
      update_residual_first(f);
    }
  }

  void decay_operands(const ChunkFactors& f) {
    const std::int64_t K = head_.K;
    const auto size = static_cast<std::size_t>(f.n * K);
    key_decayed_.resize(size), query_decayed_.resize(size), key_remaining_.resize(size);
    beta_.resize(static_cast<std::size_t>(f.n));
    for (std::int64_t i = 0; i < f.n; ++i) {
      const double beta = head_.beta[static_cast<std::size_t>(f.first + i)];
      const double error = head_.beta_error[static_cast<std::size_t>(f.first + i)];
      beta_[static_cast<std::size_t>(i)] = Number{} + beta;
      if (error > 0) beta_[static_cast<std::size_t>(i)] += run_->absolute_error(Site::beta, beta, error * std::abs(beta));
      for (std::int64_t c = 0; c < K; ++c) {
        const std::size_t entry = at(i, c, K);
        const Number error_in = log_error_[entry], error_out = log_error_[at(f.n - 1, c, K)] - error_in;
        const Number in = this->decayed(f.in[entry], error_in, f.G[entry]);
        const Number out = this->decayed(f.out[entry], error_out, f.G[at(f.n - 1, c, K)] - f.G[entry]);
        key_decayed_[entry] = run_->round(roundings_.operand, Site::key_decayed, key_[entry] * in);
        query_decayed_[entry] = run_->round(roundings_.operand, Site::query_decayed, head_.scale * query_[entry] * in);
        key_remaining_[entry] = run_->round(roundings_.operand, Site::key_remaining, key_[entry] * out);
      }
    }
  }

  static Number zero(std::int64_t, std::int64_t) { return Number{}; }

  /// Akk (times beta: L) and Aqk.
  void score_keys(const ChunkFactors& f) {
    const std::int64_t n = f.n;
    this->triangle_.assign(static_cast<std::size_t>(n * n), Number{});
    scores_.assign(static_cast<std::size_t>(n * n), Number{});
    key_scores_.assign(scores_.size(), Number{});
    scaled_query_.resize(query_.size());
    for (std::size_t entry = 0; entry < query_.size(); ++entry) scaled_query_[entry] = head_.scale * query_[entry];
    this->score(f, {{key_, false, true, Site::score_row_key}, {scaled_query_, false, false, Site::score_row_query}},
                {{key_, Site::score_column}}, [&](std::size_t row, std::size_t, std::int64_t i, std::int64_t j, Number x) {
                  if (row == 0) {
                    key_scores_[at(i, j, n)] = x;
                    this->triangle_[at(i, j, n)] = run_->round(roundings_.solve, Site::triangle, beta_[static_cast<std::size_t>(i)] * x);
                  } else {
                    scores_[at(i, j, n)] = run_->round(roundings_.operand, Site::scores, x);
                  }
                });
  }

  /// U = T beta (V - kd S).
  void update_residual_first(const ChunkFactors& f) {
    const std::int64_t n = f.n, V = head_.V;
    residual_.resize(static_cast<std::size_t>(n * V));
    update_.resize(residual_.size());
    this->times_state(
        key_decayed_, n, [&](std::int64_t i, std::int64_t j) { return Number{} - head_.v[at(f.first + i, j, V)]; },
        [&](std::int64_t i, std::int64_t j, Number x) {
          residual_[at(i, j, V)] = run_->round(roundings_.operand, Site::residual, -beta_[static_cast<std::size_t>(i)] * x);
        });
    this->triangular(
        inverse_, residual_, n, V, [](std::int64_t, std::int64_t) { return Number{}; },
        [&](std::int64_t i, std::int64_t j, Number x) { update_[at(i, j, V)] = run_->round(roundings_.operand, Site::update, x); });
  }

  /// W = T (beta kd), U = T (beta V) - W S.
  void update_wy(const ChunkFactors& f) {
    const std::int64_t n = f.n, K = head_.K, V = head_.V;
    weighted_.resize(static_cast<std::size_t>(n * K)), wy_key_.resize(weighted_.size());
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t c = 0; c < K; ++c)
        weighted_[at(i, c, K)] =
            run_->round(roundings_.operand, Site::weighted_key, beta_[static_cast<std::size_t>(i)] * key_decayed_[at(i, c, K)]);
    this->triangular(inverse_, weighted_, n, K, zero, [&](std::int64_t i, std::int64_t c, Number x) {
      wy_key_[at(i, c, K)] = run_->round(roundings_.operand, Site::wy_key, x);
    });
    weighted_.resize(static_cast<std::size_t>(n * V));
    update_.resize(weighted_.size());
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t j = 0; j < V; ++j)
        weighted_[at(i, j, V)] =
            run_->round(roundings_.operand, Site::weighted_value, beta_[static_cast<std::size_t>(i)] * head_.v[at(f.first + i, j, V)]);
    this->triangular(inverse_, weighted_, n, V, zero, [&](std::int64_t i, std::int64_t j, Number x) {
      update_[at(i, j, V)] = run_->round(roundings_.operand, Site::wy_value, x);
    });
    this->times_state(
        wy_key_, n, [&](std::int64_t i, std::int64_t j) { return -update_[at(i, j, V)]; },
        [&](std::int64_t i, std::int64_t j, Number x) { update_[at(i, j, V)] = run_->round(roundings_.operand, Site::update, -x); });
  }

  /// O = qd S + Aqk U.
  void write(const ChunkFactors& f) {
    const std::int64_t n = f.n, V = head_.V;
    output_.resize(static_cast<std::size_t>(n * V));
    this->times_state(query_decayed_, n, zero, [&](std::int64_t i, std::int64_t j, Number x) { output_[at(i, j, V)] = x; });
    this->triangular(
        scores_, update_, n, V, [&](std::int64_t i, std::int64_t j) { return output_[at(i, j, V)]; },
        [&](std::int64_t i, std::int64_t j, Number x) { output_[at(i, j, V)] = x; });
  }

  std::vector<Number> output_, key_, query_, scaled_query_, key_decayed_, query_decayed_, key_remaining_, beta_, scores_, key_scores_;
  std::vector<Number> residual_, weighted_, wy_key_, update_;
};

} // namespace kdacheck
