#pragma once
// Reverse mode of the chunkwise form of KDA (design.md section 1), perturbed: from the last chunk to the first.

#include "kda_chunk_run.hpp"

#include <cstdint>
#include <vector>

namespace kdacheck {

/// Gradients of the tokens of one chunk of one value head, before any gate, sigmoid or norm.
template <class Number> struct ChunkGradients {
  std::vector<Number> q, k, g; ///< [n,K]; q includes the scale, g is that of the log decay
  std::vector<Number> v;       ///< [n,V]
  std::vector<Number> beta;    ///< [n]
  std::vector<Number> a, b;    ///< [n,K], DPLR
};

/// dO of a chunk and the cotangent of the state after it, as operands.
template <class Run>
void receive_cotangents(Run& run, const Roundings& roundings, const ChunkFactors& f, std::int64_t V, const std::vector<double>& d_o,
                        bool exact_d_o, const std::vector<typename Run::Number>& cotangent, std::vector<typename Run::Number>& d_o_operand,
                        std::vector<typename Run::Number>& cotangent_operand) {
  using Number = typename Run::Number;
  d_o_operand.assign(static_cast<std::size_t>(f.n * V), Number{});
  for (std::size_t i = 0; i < d_o_operand.size() && !d_o.empty(); ++i) {
    const Number x = Number{} + d_o[static_cast<std::size_t>(f.first * V) + i];
    d_o_operand[i] = exact_d_o ? x : run.round(roundings.operand, Site::cotangent_scores, x);
  }
  cotangent_operand.resize(cotangent.size());
  for (std::size_t i = 0; i < cotangent.size(); ++i)
    cotangent_operand[i] = run.round(roundings.operand, Site::cotangent_state, cotangent[i]);
}

/// A state (or its cotangent) [K,V] as gradients read it: the carried one, or what the contract's gradient_state leaves of it,
/// with one rounding per stored number. The site is that of the same number as an operand of products: two roundings of one
/// number to one format are one rounding. Where the stored number is coarser than the operand, products read it too.
template <class Run>
const std::vector<typename Run::Number>&
as_gradients_read(Run& run, const Roundings& roundings, Site site, const std::vector<typename Run::Number>& state,
                  std::vector<typename Run::Number>& stored, std::vector<typename Run::Number>& operand) {
  if (!roundings.gradient_state_rounds) return state;
  stored.resize(state.size());
  for (std::size_t i = 0; i < state.size(); ++i) stored[i] = run.round(roundings.gradient_state, site, state[i]);
  if (roundings.gradient_state.unit > roundings.operand.unit) operand = stored;
  return stored;
}

template <class Run> class KdaAdjointRun : KdaChunkRun<Run> {
  using Base = KdaChunkRun<Run>;
  using Base::at, Base::head_, Base::roundings_, Base::run_, Base::log_error_, Base::state_, Base::inverse_, Base::state_operand_;
  using Base::key_, Base::scaled_query_, Base::key_decayed_, Base::query_decayed_, Base::key_remaining_, Base::beta_, Base::scores_;
  using Base::key_scores_, Base::update_;

public:
  using Number = typename Run::Number;
  using Base::advance, Base::output, Base::Base;

  /// The chunk's forward pass again from its first state, then its reverse: `cotangent` [K,V] moves from the state after
  /// the chunk to that before it. d_o [tokens,V] may be empty (zero).
  void retreat(const ChunkFactors& f, Order order, Run& run, const std::vector<Number>& state, const std::vector<double>& d_o,
               bool exact_d_o, std::vector<Number>& cotangent, ChunkGradients<Number>& out) {
    run_ = &run;
    state_ = state;
    this->update(f, order);
    receive_cotangents(run, roundings_, f, head_.V, d_o, exact_d_o, cotangent, d_o_, cotangent_operand_);
    const auto& read_state = as_gradients_read(run, roundings_, Site::state_operand, state_, stored_state_, state_operand_);
    const auto& read_cotangent =
        as_gradients_read(run, roundings_, Site::cotangent_state, cotangent, stored_cotangent_, cotangent_operand_);
    solve_adjoint(f, out);
    score_adjoint(f.n);
    rows_from_states(f);
    start_decay_gradient(f, read_state, read_cotangent);
    this->score_backward(
        f, {{key_, false, true, Site::score_row_key}, {scaled_query_, false, true, Site::score_row_query}}, {{key_, Site::score_column}},
        [&](std::size_t row, std::size_t, std::int64_t i, std::int64_t j) { return (row == 0 ? d_key_scores_ : d_scores_)[at(i, j, f.n)]; },
        {&row_key_, &row_query_}, {&column_key_},
        [&](std::size_t row, std::int64_t i, std::int64_t c) { return (row == 0 ? key_ : scaled_query_)[at(i, c, head_.K)]; },
        [&](std::size_t, std::int64_t j, std::int64_t c) { return key_[at(j, c, head_.K)]; });
    decay_gradient(f.n, out);
    finish(f.n, out);
    carry_back(f, cotangent);
  }

private:
  static Number zero(std::int64_t, std::int64_t) { return Number{}; }

  /// dU = Aqk^T dO + kr dS', dZ = T^T dU, dV = beta dZ, dbeta_i = dZ_i . (V - kd S - Akk U)_i.
  void solve_adjoint(const ChunkFactors& f, ChunkGradients<Number>& out) {
    const std::int64_t n = f.n, K = head_.K, V = head_.V;
    const auto columns = [V](std::int64_t) { return V; };
    d_update_.resize(static_cast<std::size_t>(n * V)), d_residual_.resize(d_update_.size()), weighted_.resize(d_update_.size());
    multiply(
        *run_, n, columns,
        [n](std::int64_t i, std::int64_t) {
          return Range{i, n};
        },
        zero, [&](std::int64_t i, std::int64_t m) { return scores_[at(m, i, n)]; },
        [&](std::int64_t m, std::int64_t j) { return d_o_[at(m, j, V)]; },
        [&](std::int64_t i, std::int64_t j, Number x) { d_update_[at(i, j, V)] = x; });
    multiply(
        *run_, n, columns,
        [K](std::int64_t, std::int64_t) {
          return Range{0, K};
        },
        [&](std::int64_t i, std::int64_t j) { return d_update_[at(i, j, V)]; },
        [&](std::int64_t i, std::int64_t c) { return key_remaining_[at(i, c, K)]; },
        [&](std::int64_t c, std::int64_t j) { return cotangent_operand_[at(c, j, V)]; },
        [&](std::int64_t i, std::int64_t j, Number x) {
          d_update_[at(i, j, V)] = run_->round(roundings_.operand, Site::cotangent_update, x);
        });
    multiply(
        *run_, n, columns,
        [n](std::int64_t i, std::int64_t) {
          return Range{i, n};
        },
        zero, [&](std::int64_t i, std::int64_t m) { return inverse_[at(m, i, n)]; },
        [&](std::int64_t m, std::int64_t j) { return d_update_[at(m, j, V)]; },
        [&](std::int64_t i, std::int64_t j, Number x) { d_residual_[at(i, j, V)] = x; });
    difference_.resize(d_update_.size());
    this->times_state(
        key_decayed_, n, [&](std::int64_t i, std::int64_t j) { return Number{} - head_.v[at(f.first + i, j, V)]; },
        [&](std::int64_t i, std::int64_t j, Number x) { difference_[at(i, j, V)] = -x; });
    multiply(
        *run_, n, columns,
        [](std::int64_t i, std::int64_t) {
          return Range{0, i};
        },
        [&](std::int64_t i, std::int64_t j) { return -difference_[at(i, j, V)]; },
        [&](std::int64_t i, std::int64_t m) { return key_scores_[at(i, m, n)]; },
        [&](std::int64_t m, std::int64_t j) { return update_[at(m, j, V)]; },
        [&](std::int64_t i, std::int64_t j, Number x) { difference_[at(i, j, V)] = run_->round(roundings_.single, Site::gate_terms, -x); });
    out.v.resize(d_update_.size()), out.beta.resize(static_cast<std::size_t>(n));
    for (std::int64_t i = 0; i < n; ++i)
      this->inner(
          V, [&](std::int64_t j) { return d_residual_[at(i, j, V)]; }, [&](std::int64_t j) { return difference_[at(i, j, V)]; },
          [&](Number x) { out.beta[static_cast<std::size_t>(i)] = x; });
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t j = 0; j < V; ++j) {
        const Number x = beta_[static_cast<std::size_t>(i)] * d_residual_[at(i, j, V)];
        out.v[at(i, j, V)] = run_->round(roundings_.single, Site::gradient, x);
        weighted_[at(i, j, V)] = run_->round(roundings_.operand, Site::cotangent_weighted, x);
        d_residual_[at(i, j, V)] = run_->round(roundings_.operand, Site::cotangent_residual, d_residual_[at(i, j, V)]);
      }
  }

  /// dAkk = -diag(beta) strict_lower(dZ U^T), dAqk = lower(dO U^T), as operands of the scores.
  void score_adjoint(std::int64_t n) {
    const std::int64_t V = head_.V;
    d_key_scores_.assign(static_cast<std::size_t>(n * n), Number{}), d_scores_.assign(d_key_scores_.size(), Number{});
    const auto outer = [&](const std::vector<Number>& left, std::int64_t diagonal, auto&& store) {
      multiply(
          *run_, n, [diagonal](std::int64_t i) { return i + diagonal; },
          [V](std::int64_t, std::int64_t) {
            return Range{0, V};
          },
          zero, [&](std::int64_t i, std::int64_t v) { return left[at(i, v, V)]; },
          [&](std::int64_t v, std::int64_t j) { return update_[at(j, v, V)]; }, store);
    };
    outer(d_residual_, 0, [&](std::int64_t i, std::int64_t j, Number x) {
      d_key_scores_[at(i, j, n)] = -run_->round(roundings_.score, Site::cotangent_scores, beta_[static_cast<std::size_t>(i)] * x);
    });
    outer(d_o_, 1, [&](std::int64_t i, std::int64_t j, Number x) {
      d_scores_[at(i, j, n)] = run_->round(roundings_.score, Site::second_scores, x);
    });
  }

  /// What reaches q and k through the states at both ends: e^G dO S^T, -e^G (beta dZ) S^T, e^{G_C - G} U dS'^T.
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
    const auto from_start = [&](std::int64_t i, std::int64_t c) {
      return this->decayed(f.in[at(i, c, K)], log_error_[at(i, c, K)], f.G[at(i, c, K)]);
    };
    through(d_o_, state_operand_, row_query_, from_start);
    through(weighted_, state_operand_, row_key_, [&](std::int64_t i, std::int64_t c) { return -from_start(i, c); });
    through(update_, cotangent_operand_, column_key_, [&](std::int64_t i, std::int64_t c) {
      return this->decayed(f.out[at(i, c, K)], log_error_[at(n - 1, c, K)] - log_error_[at(i, c, K)],
                           f.G[at(n - 1, c, K)] - f.G[at(i, c, K)]);
    });
    end_key_ = column_key_;
  }

  /// What the chunk's end gives to the last token's decay, and in a run that records all of dG but for pairs. The last token's own
  /// write does not decay.
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
        [&](std::int64_t i, std::int64_t c) { return key_[at(i, c, K)] * end_key_[at(i, c, K)]; },
        [&](std::int64_t, std::int64_t c, Number x) {
          end[static_cast<std::size_t>(c)] = run_->round(roundings_.single, Site::gate_terms, x);
        });
    for (std::int64_t c = 0; c < K; ++c) {
      const Number whole = this->decayed(f.whole[static_cast<std::size_t>(c)], log_error_[at(n - 1, c, K)], f.G[at(n - 1, c, K)]);
      this->inner_of_singles(
          V, [&](std::int64_t v) { return state[at(c, v, V)]; }, [&](std::int64_t v) { return cotangent[at(c, v, V)]; },
          [&](Number x) { end[static_cast<std::size_t>(c)] += run_->round(roundings_.single, Site::gate_terms, whole * x); });
    }
    if constexpr (Run::records) {
      this->gate_.resize(static_cast<std::size_t>(n * K));
      for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t c = 0; c < K; ++c) {
          const std::size_t entry = at(i, c, K);
          this->gate_[entry] = scaled_query_[entry] * row_query_[entry] + key_[entry] * row_key_[entry] +
                               (i == n - 1 ? end[static_cast<std::size_t>(c)] : -(key_[entry] * column_key_[entry]));
        }
    }
  }

  /// dG from rows and columns, the chunk's end on top, and its reverse sum. No pair i = j enters.
  void decay_gradient(std::int64_t n, ChunkGradients<Number>& out) {
    const std::int64_t K = head_.K;
    out.g.resize(static_cast<std::size_t>(n * K));
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t c = 0; c < K; ++c) {
        const std::size_t entry = at(i, c, K);
        Number column = column_key_[entry];
        if (i == n - 1) column -= end_key_[entry];
        // each of the three products, and each addition of what are often nearly opposite terms, rounds on its own
        const Number of_query = run_->round(roundings_.single, Site::gate_terms, scaled_query_[entry] * row_query_[entry]);
        const Number of_row = run_->round(roundings_.single, Site::gate_terms, key_[entry] * row_key_[entry]);
        const Number of_column = run_->round(roundings_.single, Site::gate_terms, key_[entry] * column);
        out.g[entry] = run_->round(roundings_.single, Site::gate_terms, of_query + (of_row - of_column));
      }
    this->settle_gate(out.g);
    for (std::int64_t c = 0; c < K; ++c) {
      Number sum = end_[static_cast<std::size_t>(c)];
      for (std::int64_t i = n - 1; i >= 0; --i)
        out.g[at(i, c, K)] = sum = run_->round(roundings_.single, Site::gate_sum, sum + out.g[at(i, c, K)]);
    }
  }

  /// The pairs i = j, then dq and dk.
  void finish(std::int64_t n, ChunkGradients<Number>& out) {
    const std::int64_t K = head_.K;
    out.q.resize(static_cast<std::size_t>(n * K)), out.k.resize(out.q.size());
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t c = 0; c < K; ++c) {
        const std::size_t entry = at(i, c, K);
        const Number same = d_scores_[at(i, i, n)];
        out.q[entry] = run_->round(roundings_.single, Site::gradient, head_.scale * (row_query_[entry] + same * key_[entry]));
        const Number column = run_->round(roundings_.single, Site::gate_terms, column_key_[entry] + same * scaled_query_[entry]);
        out.k[entry] = run_->round(roundings_.single, Site::gradient, row_key_[entry] + column);
      }
  }

  /// dS = Diag(e^{G_C}) dS' + qd^T dO - kd^T (beta dZ).
  void carry_back(const ChunkFactors& f, std::vector<Number>& cotangent) {
    state_.swap(cotangent);
    for (Number& x : weighted_) x = -x;
    this->carry(f, {{&query_decayed_, &d_o_}, {&key_decayed_, &weighted_}});
    state_.swap(cotangent);
  }

  std::vector<Number> stored_state_, stored_cotangent_;
  std::vector<Number> d_o_, cotangent_operand_, d_update_, d_residual_, weighted_, difference_;
  std::vector<Number> d_key_scores_, d_scores_, row_query_, row_key_, column_key_, end_key_, end_;
};

} // namespace kdacheck
