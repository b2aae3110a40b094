#pragma once
// Reverse mode of the chunkwise form of the general rule, perturbed (forward: dplr_chunk_run.hpp). With R = bd S + M v,
// w = (I + L)^{-1} R and O = qd S + Aqk v - Aqa w:
//   dw = -(Aqa^T dO + ar dS')    Y = (I + L)^{-T} dw        dv = Aqk^T dO + kr dS' + M^T Y
//   dL = -strict_lower(Y w^T)    dM = strict_lower(Y v^T)   dAqa = -lower(dO w^T)   dAqk = lower(dO v^T)
//   dbd = Y S^T   dqd = dO S^T   dar = -w dS'^T   dkr = v dS'^T    dS = Diag(e^{G_C}) dS' + qd^T dO + bd^T Y
// q decays with G_i, b with G_{i-1}: dG_i = q dq - a da - k dk, dG_{i-1} += b db, the chunk's end on top.

#include "dplr_chunk_run.hpp"
#include "kda_adjoint_run.hpp"

#include <cstdint>
#include <vector>

namespace kdacheck {

template <class Run> class DplrAdjointRun : DplrChunkRun<Run> {
  using Base = DplrChunkRun<Run>;
  using Base::at, Base::head_, Base::roundings_, Base::run_, Base::log_error_, Base::state_, Base::inverse_, Base::state_operand_;
  using Base::key_, Base::query_, Base::a_, Base::b_, Base::value_, Base::b_decayed_, Base::query_decayed_, Base::key_remaining_;
  using Base::second_remaining_, Base::mixed_, Base::query_key_, Base::query_a_, Base::read_;

public:
  using Number = typename Run::Number;
  using Base::advance, Base::output, Base::Base;

  /// As KdaAdjointRun::retreat.
  void retreat(const ChunkFactors& f, Order order, Run& run, const std::vector<Number>& state, const std::vector<double>& d_o,
               bool exact_d_o, std::vector<Number>& cotangent, ChunkGradients<Number>& out) {
    run_ = &run;
    state_ = state;
    this->read_memory(f, order);
    receive_cotangents(run, roundings_, f, head_.V, d_o, exact_d_o, cotangent, d_o_, cotangent_operand_);
    const auto& read_state = as_gradients_read(run, roundings_, Site::state_operand, state_, stored_state_, state_operand_);
    const auto& read_cotangent =
        as_gradients_read(run, roundings_, Site::cotangent_state, cotangent, stored_cotangent_, cotangent_operand_);
    solve_adjoint(f.n, out);
    score_adjoint(f.n);
    rows_from_states(f);
    start_decay_gradient(f, read_state, read_cotangent);
    // entry (i, i-1) of b's scores has no decay, nor has (i, i) of q's: both are left out here and added in finish()
    this->score_backward(
        f, {{b_, true, true, Site::score_row_key}, {query_, false, true, Site::score_row_query}},
        {{a_, Site::score_column}, {key_, Site::second_score_column}},
        [&](std::size_t row, std::size_t column, std::int64_t i, std::int64_t j) {
          if (row == 0 && j == i - 1) return Number{};
          return (row == 0 ? (column == 0 ? d_triangle_ : d_mixed_) : column == 0 ? d_query_a_ : d_query_key_)[at(i, j, f.n)];
        },
        {&row_b_, &row_query_}, {&column_a_, &column_key_},
        [&](std::size_t row, std::int64_t i, std::int64_t c) { return (row == 0 ? b_ : query_)[at(i, c, head_.K)]; },
        [&](std::size_t column, std::int64_t j, std::int64_t c) { return (column == 0 ? a_ : key_)[at(j, c, head_.K)]; });
    decay_gradient(f.n, out);
    finish(f.n, out);
    state_.swap(cotangent);
    this->carry(f, {{&query_decayed_, &d_o_}, {&b_decayed_, &Y_}});
    state_.swap(cotangent);
  }

private:
  static Number zero(std::int64_t, std::int64_t) { return Number{}; }

  /// store(i, j, start(i, j) + sum over m in [from(i), n) of matrix_mi right_mj): a lower triangular matrix, transposed.
  template <class Start, class Store>
  void transposed(const std::vector<Number>& matrix, const std::vector<Number>& right, std::int64_t n, Start&& start, Store&& store) {
    const std::int64_t V = head_.V;
    multiply(
        *run_, n, [V](std::int64_t) { return V; },
        [n](std::int64_t i, std::int64_t) {
          return Range{i, n};
        },
        start, [&](std::int64_t i, std::int64_t m) { return matrix[at(m, i, n)]; },
        [&](std::int64_t m, std::int64_t j) { return right[at(m, j, V)]; }, store);
  }

  template <class Start, class Store> void from_end(const std::vector<Number>& remaining, std::int64_t n, Start&& start, Store&& store) {
    const std::int64_t K = head_.K, V = head_.V;
    multiply(
        *run_, n, [V](std::int64_t) { return V; },
        [K](std::int64_t, std::int64_t) {
          return Range{0, K};
        },
        start, [&](std::int64_t i, std::int64_t c) { return remaining[at(i, c, K)]; },
        [&](std::int64_t c, std::int64_t j) { return cotangent_operand_[at(c, j, V)]; }, store);
  }

  void solve_adjoint(std::int64_t n, ChunkGradients<Number>& out) {
    const std::int64_t V = head_.V;
    std::vector<Number> sum(static_cast<std::size_t>(n * V));
    const auto started = [&](std::int64_t i, std::int64_t j) { return sum[at(i, j, V)]; };
    const auto keep = [&](std::int64_t i, std::int64_t j, Number x) { sum[at(i, j, V)] = x; };
    transposed(query_a_, d_o_, n, zero, keep);
    from_end(second_remaining_, n, started, [&](std::int64_t i, std::int64_t j, Number x) {
      sum[at(i, j, V)] = -run_->round(roundings_.operand, Site::cotangent_update, x);
    });
    Y_.resize(sum.size()), out.v.resize(sum.size());
    transposed(inverse_, sum, n, zero, [&](std::int64_t i, std::int64_t j, Number x) {
      Y_[at(i, j, V)] = run_->round(roundings_.operand, Site::cotangent_residual, x);
    });
    transposed(query_key_, d_o_, n, zero, keep);
    from_end(key_remaining_, n, started, keep);
    transposed(mixed_, Y_, n, started,
               [&](std::int64_t i, std::int64_t j, Number x) { out.v[at(i, j, V)] = run_->round(roundings_.single, Site::gradient, x); });
  }

  void score_adjoint(std::int64_t n) {
    const std::int64_t V = head_.V;
    const auto outer = [&](const std::vector<Number>& left, const std::vector<Number>& right, std::int64_t diagonal, double sign, Site site,
                           std::vector<Number>& into) {
      into.assign(static_cast<std::size_t>(n * n), Number{});
      multiply(
          *run_, n, [diagonal](std::int64_t i) { return i + diagonal; },
          [V](std::int64_t, std::int64_t) {
            return Range{0, V};
          },
          zero, [&](std::int64_t i, std::int64_t v) { return left[at(i, v, V)]; },
          [&](std::int64_t v, std::int64_t j) { return right[at(j, v, V)]; },
          [&](std::int64_t i, std::int64_t j, Number x) { into[at(i, j, n)] = sign * run_->round(roundings_.score, site, x); });
    };
    outer(Y_, read_, 0, -1, Site::cotangent_scores, d_triangle_);
    outer(Y_, value_, 0, 1, Site::cotangent_weighted, d_mixed_);
    outer(d_o_, read_, 1, -1, Site::second_scores, d_query_a_);
    outer(d_o_, value_, 1, 1, Site::scores, d_query_key_);
  }

  void rows_from_states(const ChunkFactors& f) {
    const std::int64_t n = f.n, K = head_.K, V = head_.V;
    const auto through = [&](const std::vector<Number>& left, const std::vector<Number>& state, std::vector<Number>& into, auto&& factor) {
      into.resize(static_cast<std::size_t>(n * K));
      multiply(
          *run_, n, [K](std::int64_t) { return K; },
          [V](std::int64_t, std::int64_t) {
            return Range{0, V};
          },
          zero, [&](std::int64_t i, std::int64_t v) { return left[at(i, v, V)]; },
          [&](std::int64_t v, std::int64_t c) { return state[at(c, v, V)]; },
          [&](std::int64_t i, std::int64_t c, Number x) { into[at(i, c, K)] = this->settled(factor(i, c) * x); });
    };
    const auto to_end = [&](std::int64_t i, std::int64_t c) {
      return this->decayed(f.out[at(i, c, K)], log_error_[at(n - 1, c, K)] - log_error_[at(i, c, K)],
                           f.G[at(n - 1, c, K)] - f.G[at(i, c, K)]);
    };
    through(d_o_, state_operand_, row_query_,
            [&](std::int64_t i, std::int64_t c) { return this->decayed(f.in[at(i, c, K)], log_error_[at(i, c, K)], f.G[at(i, c, K)]); });
    through(Y_, state_operand_, row_b_, [&](std::int64_t i, std::int64_t c) {
      return this->decayed(f.before[at(i, c, K)], this->log_error(i, c, true), this->log_decay(f, i, c, true));
    });
    through(read_, cotangent_operand_, column_a_, [&](std::int64_t i, std::int64_t c) { return -to_end(i, c); });
    through(value_, cotangent_operand_, column_key_, to_end);
    end_a_ = column_a_, end_key_ = column_key_;
  }

  Number term(Number x) { return run_->round(roundings_.single, Site::gate_terms, x); }

  /// What the chunk's end gives to the last token's decay, and in a run that records all of dG but for pairs.
  void start_decay_gradient(const ChunkFactors& f, const std::vector<Number>& state, const std::vector<Number>& cotangent) {
    const std::int64_t n = f.n, K = head_.K, V = head_.V;
    std::vector<Number>& end = end_;
    end.assign(static_cast<std::size_t>(K), Number{});
    multiply(
        *run_, 1, [K](std::int64_t) { return K; },
        [n](std::int64_t, std::int64_t) {
          return Range{0, n - 1};
        },
        zero, [&](std::int64_t, std::int64_t) { return 1.0; },
        [&](std::int64_t i, std::int64_t c) { return a_[at(i, c, K)] * end_a_[at(i, c, K)] + key_[at(i, c, K)] * end_key_[at(i, c, K)]; },
        [&](std::int64_t, std::int64_t c, Number x) { end[static_cast<std::size_t>(c)] = term(x); });
    for (std::int64_t c = 0; c < K; ++c) {
      const Number whole = this->decayed(f.whole[static_cast<std::size_t>(c)], log_error_[at(n - 1, c, K)], f.G[at(n - 1, c, K)]);
      this->inner_of_singles(
          V, [&](std::int64_t v) { return state[at(c, v, V)]; }, [&](std::int64_t v) { return cotangent[at(c, v, V)]; },
          [&](Number x) { end[static_cast<std::size_t>(c)] += term(whole * x); });
    }
    if constexpr (Run::records) {
      this->gate_.resize(static_cast<std::size_t>(n * K));
      for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t c = 0; c < K; ++c) {
          const std::size_t entry = at(i, c, K);
          Number& own = this->gate_[entry];
          own = query_[entry] * row_query_[entry];
          own += i == n - 1 ? end[static_cast<std::size_t>(c)] : -(a_[entry] * column_a_[entry] + key_[entry] * column_key_[entry]);
          if (i + 1 < n) own += b_[at(i + 1, c, K)] * row_b_[at(i + 1, c, K)];
        }
    }
  }

  void decay_gradient(std::int64_t n, ChunkGradients<Number>& out) {
    const std::int64_t K = head_.K;
    out.g.resize(static_cast<std::size_t>(n * K));
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t c = 0; c < K; ++c) {
        const std::size_t entry = at(i, c, K);
        Number of_a = column_a_[entry], of_key = column_key_[entry];
        if (i == n - 1) of_a -= end_a_[entry], of_key -= end_key_[entry];
        Number own = term(query_[entry] * row_query_[entry]) - term(term(a_[entry] * of_a) + term(key_[entry] * of_key));
        if (i + 1 < n) own = term(own) + term(b_[at(i + 1, c, K)] * row_b_[at(i + 1, c, K)]);
        out.g[entry] = term(own);
      }
    this->settle_gate(out.g);
    for (std::int64_t c = 0; c < K; ++c) {
      Number sum = end_[static_cast<std::size_t>(c)];
      for (std::int64_t i = n - 1; i >= 0; --i)
        out.g[at(i, c, K)] = sum = run_->round(roundings_.single, Site::gate_sum, sum + out.g[at(i, c, K)]);
    }
  }

  /// The pairs without decay, then every row and column.
  void finish(std::int64_t n, ChunkGradients<Number>& out) {
    const std::int64_t K = head_.K;
    const auto single = [&](Number x) { return run_->round(roundings_.single, Site::gradient, x); };
    for (auto* rows : {&out.q, &out.k, &out.a, &out.b}) rows->resize(static_cast<std::size_t>(n * K));
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t c = 0; c < K; ++c) {
        const std::size_t entry = at(i, c, K), previous = at(i - 1, c, K), next = at(i + 1, c, K);
        const Number with_a = d_query_a_[at(i, i, n)], with_key = d_query_key_[at(i, i, n)];
        Number b = row_b_[entry], a = column_a_[entry] + with_a * query_[entry], k = column_key_[entry] + with_key * query_[entry];
        if (i > 0) b += d_triangle_[at(i, i - 1, n)] * a_[previous] + d_mixed_[at(i, i - 1, n)] * key_[previous];
        if (i + 1 < n) a += d_triangle_[at(i + 1, i, n)] * b_[next], k += d_mixed_[at(i + 1, i, n)] * b_[next];
        out.q[entry] = single(head_.scale * single(row_query_[entry] + with_a * a_[entry] + with_key * key_[entry]));
        out.b[entry] = single(b), out.a[entry] = single(a), out.k[entry] = single(k);
      }
  }

  std::vector<Number> stored_state_, stored_cotangent_;
  std::vector<Number> d_o_, cotangent_operand_, Y_, d_triangle_, d_mixed_, d_query_a_, d_query_key_;
  std::vector<Number> row_query_, row_b_, column_a_, column_key_, end_a_, end_key_, end_;
};

} // namespace kdacheck
