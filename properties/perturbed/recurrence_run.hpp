#pragma once
// The token recurrence (KDA and DPLR) with a rounding at every operation on the state.

#include "../budget_head.hpp"
#include "perturbed_products.hpp"

#include <cmath>
#include <cstdint>
#include <vector>

namespace kdacheck {

template <class Run> class RecurrenceRun {
public:
  using Number = typename Run::Number;

  /// `interval`: tokens between two stored states.
  RecurrenceRun(const Head& head, const Roundings& roundings, std::int64_t interval)
      : head_(head), roundings_(roundings), interval_(interval) {}

  const std::vector<Number>& output() const { return output_; } ///< [n,V] of the last span

  /// Runs n tokens from `first` on: `state` [K,V] moves on, output() holds their rows of o.
  void advance(std::int64_t first, std::int64_t n, Run& run, std::vector<Number>& state) {
    run_ = &run;
    state_.swap(state);
    output_.resize(static_cast<std::size_t>(n * head_.V));
    for (std::int64_t i = 0; i < n; ++i) step(first + i, i);
    state_.swap(state);
  }

protected:
  static std::size_t at(std::int64_t i, std::int64_t j, std::int64_t width) { return static_cast<std::size_t>(i * width + j); }

  /// Row t of q or k as the kernel has it.
  void read(std::vector<Number>& row, const std::vector<double>& exact, std::int64_t t, Site site) {
    const std::int64_t K = head_.K;
    row.resize(static_cast<std::size_t>(K));
    Number common = Number{} + 1.0;
    if (head_.normalised) common += run_->absolute_error(Site::norm, exact[at(t, 0, K)], head_.norm_error);
    for (std::int64_t c = 0; c < K; ++c) {
      const Number x = common * exact[at(t, c, K)];
      row[static_cast<std::size_t>(c)] = head_.normalised ? run_->round(roundings_.operand, site, x) : x;
    }
  }

  /// What of the inputs is an operand as it stands. A coarse format rounds all but its own numbers.
  Number input(double x, Site site) {
    return roundings_.coarse_operand && !is_number_of(roundings_.operand, x) ? run_->round(roundings_.operand, site, x) : Number{} + x;
  }
  void read_input(std::vector<Number>& row, const std::vector<double>& exact, std::int64_t t, std::int64_t width, Site site) {
    row.resize(static_cast<std::size_t>(width));
    for (std::int64_t i = 0; i < width; ++i) row[static_cast<std::size_t>(i)] = input(exact[at(t, i, width)], site);
  }

  /// Row t of k as an operand; one that was normalised has been rounded.
  const std::vector<Number>& key_operand(std::int64_t t) {
    if (head_.normalised || !roundings_.coarse_operand) return key_;
    read_input(key_operand_, head_.k, t, head_.K, Site::key);
    return key_operand_;
  }

  static Number nothing(std::int64_t) { return Number{}; }

  /// store(j, start(j) + sum_c row_c matrix_cj)
  template <class Start, class Store>
  void read_out(const std::vector<Number>& row, const std::vector<Number>& matrix, Start&& start, Store&& store) {
    const std::int64_t K = head_.K, V = head_.V;
    multiply(
        *run_, 1, [V](std::int64_t) { return V; },
        [K](std::int64_t, std::int64_t) {
          return Range{0, K};
        },
        [&](std::int64_t, std::int64_t j) { return start(j); },
        [&](std::int64_t, std::int64_t c) { return row[static_cast<std::size_t>(c)]; },
        [&](std::int64_t c, std::int64_t j) { return matrix[at(c, j, V)]; }, store);
  }

  /// Numbers as operands of products: themselves, or rounded where the contract's operands are coarser than fp32.
  const std::vector<Number>& as_operand(const std::vector<Number>& numbers, Site site, std::vector<Number>& rounded) {
    if (!roundings_.coarse_operand) return numbers;
    rounded.resize(numbers.size());
    for (std::size_t i = 0; i < numbers.size(); ++i) rounded[i] = as_operand(numbers[i], site);
    return rounded;
  }
  Number as_operand(Number x, Site site) { return roundings_.coarse_operand ? run_->round(roundings_.operand, site, x) : x; }
  const std::vector<Number>& operand() { return as_operand(state_, Site::state_operand, operand_); }

  void decay(std::int64_t t) {
    const std::int64_t K = head_.K, V = head_.V;
    for (std::int64_t c = 0; c < K; ++c) {
      const double g = head_.g[at(t, c, K)], exact = std::exp(g);
      if (g == 0 && head_.gate_error[at(t, c, K)] == 0) continue;
      Number log_error =
          run_->absolute_error(Site::exponential, g, head_.gate_error[at(t, c, K)] + roundings_.exponential + 0x1p-24 * std::abs(g));
      const Number alpha = exact * grow(log_error);
      for (std::int64_t j = 0; j < V; ++j)
        state_[at(c, j, V)] = run_->round(roundings_.single, Site::decayed_state, alpha * state_[at(c, j, V)]);
    }
  }

  void step(std::int64_t t, std::int64_t row) {
    const std::int64_t K = head_.K, V = head_.V;
    read(key_, head_.k, t, Site::key);
    read(query_, head_.q, t, Site::query);
    const std::vector<Number>& key = key_operand(t);
    update_.resize(static_cast<std::size_t>(V));
    const bool stored = (t + 1) % interval_ == 0 || t + 1 == head_.tokens;
    const Rounding& kept = stored ? roundings_.state : roundings_.single;
    if (head_.dplr) {
      read_input(a_, head_.a, t, K, Site::second_remaining);
      read_input(b_, head_.b, t, K, Site::key_decayed);
      read_input(value_, head_.v, t, V, Site::weighted_value);
      read_out(b_, operand(), nothing,
               [&](std::int64_t, std::int64_t j, Number x) { update_[static_cast<std::size_t>(j)] = as_operand(x, Site::residual); });
      decay(t);
      for (std::int64_t c = 0; c < K; ++c)
        for (std::int64_t j = 0; j < V; ++j) {
          const Number change = key[static_cast<std::size_t>(c)] * value_[static_cast<std::size_t>(j)] -
                                a_[static_cast<std::size_t>(c)] * update_[static_cast<std::size_t>(j)];
          const Number erased = run_->round(roundings_.single, Site::update, change);
          state_[at(c, j, V)] = run_->round(kept, Site::state, state_[at(c, j, V)] + erased);
        }
    } else {
      decay(t);
      const double beta = head_.beta[static_cast<std::size_t>(t)];
      const Number factor = beta + run_->absolute_error(Site::beta, beta, head_.beta_error[static_cast<std::size_t>(t)] * std::abs(beta));
      read_out(
          key, operand(), [&](std::int64_t j) { return Number{} - head_.v[at(t, j, V)]; },
          [&](std::int64_t, std::int64_t j, Number x) {
            update_[static_cast<std::size_t>(j)] = run_->round(roundings_.operand, Site::residual, -factor * x);
          });
      for (std::int64_t c = 0; c < K; ++c)
        for (std::int64_t j = 0; j < V; ++j)
          state_[at(c, j, V)] =
              run_->round(kept, Site::state, state_[at(c, j, V)] + key[static_cast<std::size_t>(c)] * update_[static_cast<std::size_t>(j)]);
    }
    for (std::int64_t c = 0; c < K; ++c)
      query_[static_cast<std::size_t>(c)] =
          run_->round(roundings_.operand, Site::query_decayed, head_.scale * query_[static_cast<std::size_t>(c)]);
    read_out(query_, operand(), nothing, [&](std::int64_t, std::int64_t j, Number x) { output_[at(row, j, V)] = x; });
  }

  const Head& head_;
  const Roundings& roundings_;
  std::int64_t interval_; ///< tokens between two stored states
  Run* run_ = nullptr;
  std::vector<Number> state_, operand_, output_, key_, query_, key_operand_, a_, b_, value_, update_;
};

} // namespace kdacheck
