#pragma once
// Reverse mode of the token recurrence, KDA and DPLR, perturbed. With Lambda the cotangent of S_t:
//   KDA   X = Diag(alpha) S_{t-1}, w = v - X^T k, m = Lambda^T k: dv = beta m, dbeta = m . w, dk = beta (Lambda w - X m),
//         Y = Lambda - beta k m^T, dg = rows of X . Y, cotangent of S_{t-1}: Diag(alpha) Y
//   DPLR  w = -S_{t-1}^T b, u = Lambda^T a: da = Lambda w, dk = Lambda v, dv = Lambda^T k, db = -S_{t-1} u,
//         dg = rows of Diag(alpha) S_{t-1} . Lambda, cotangent of S_{t-1}: Diag(alpha) Lambda - b u^T
// Where the contract says so dg is a running sum instead: E_t, the rows of S_t . (cotangent of S_t before dq's share), starts as those of
// S_T . dS_T. Since S_t = X + k (beta w)^T, KDA has dg_t = E_t + q dq - k beta (Lambda w + X m) = E_{t-1}; the general rule, whose S_t
// is X + a w^T + k v^T, dg_t = E_t + q dq - a da - k dk and E_{t-1} = dg_t + b db.

#include "kda_adjoint_run.hpp"
#include "recurrence_run.hpp"

#include <cstdint>
#include <vector>

namespace kdacheck {

template <class Run> class RecurrenceAdjointRun : RecurrenceRun<Run> {
  using Base = RecurrenceRun<Run>;
  using Base::at, Base::head_, Base::roundings_, Base::run_, Base::state_, Base::key_, Base::query_, Base::a_, Base::b_, Base::value_;

public:
  using Number = typename Run::Number;
  using Base::advance, Base::output, Base::Base;

  /// As KdaAdjointRun::retreat, for the tokens [first, first + n).
  void retreat(std::int64_t first, std::int64_t n, Run& run, const std::vector<Number>& state, const std::vector<double>& d_o,
               std::vector<Number>& cotangent, ChunkGradients<Number>& out) {
    const std::int64_t K = head_.K, V = head_.V;
    run_ = &run;
    state_ = state;
    this->output_.resize(static_cast<std::size_t>(n * V));
    states_.assign(1, state);
    for (std::int64_t i = 0; i < n; ++i) {
      this->step(first + i, i);
      states_.push_back(state_);
    }
    for (auto* rows : {&out.q, &out.k, &out.g, &out.a, &out.b}) rows->assign(static_cast<std::size_t>(n * K), Number{});
    out.v.assign(static_cast<std::size_t>(n * V), Number{});
    out.beta.assign(static_cast<std::size_t>(n), Number{});
    adjoint_.swap(cotangent);
    if (roundings_.decay_sums && first + n == head_.tokens) start_decay_sums();
    for (std::int64_t i = n - 1; i >= 0; --i) {
      receive(first + i, i, d_o, out);
      if (head_.dplr) {
        retreat_dplr(first + i, i, out);
      } else {
        retreat_kda(first + i, i, out);
      }
    }
    adjoint_.swap(cotangent);
  }

private:
  Number single(Number x, Site site = Site::gradient) { return run_->round(roundings_.single, site, x); }

  const std::vector<Number>& state_as_operand(const std::vector<Number>& state) {
    return this->as_operand(state, Site::state_operand, state_operand_);
  }
  const std::vector<Number>& adjoint_as_operand() { return this->as_operand(adjoint_, Site::cotangent_state, adjoint_operand_); }

  /// store(c, sum over j of matrix_cj row_j) for c < K
  template <class Store> void rows_times(const std::vector<Number>& matrix, const std::vector<Number>& row, Store&& store) {
    const std::int64_t K = head_.K, V = head_.V;
    multiply(
        *run_, K, [](std::int64_t) { return std::int64_t{1}; },
        [V](std::int64_t, std::int64_t) {
          return Range{0, V};
        },
        [](std::int64_t, std::int64_t) { return Number{}; }, [&](std::int64_t c, std::int64_t j) { return matrix[at(c, j, V)]; },
        [&](std::int64_t j, std::int64_t) { return row[static_cast<std::size_t>(j)]; },
        [&](std::int64_t c, std::int64_t, Number x) { store(c, x); });
  }

  Number alpha(std::int64_t t, std::int64_t c) {
    const double g = head_.g[at(t, c, head_.K)];
    return std::exp(g) * grow(run_->absolute_error(Site::exponential, Number{} + g,
                                                   head_.gate_error[at(t, c, head_.K)] + roundings_.exponential + 0x1p-24 * std::abs(g)));
  }

  /// The token's rows, dq, and Lambda += scale q do^T.
  void receive(std::int64_t t, std::int64_t i, const std::vector<double>& d_o, ChunkGradients<Number>& out) {
    const std::int64_t K = head_.K, V = head_.V;
    this->read(key_, head_.k, t, Site::key);
    this->read(query_, head_.q, t, Site::query);
    if (d_o.empty()) return;
    this->read_input(d_o_, d_o, t, V, Site::cotangent_scores);
    rows_times(state_as_operand(states_[static_cast<std::size_t>(i + 1)]), d_o_,
               [&](std::int64_t c, Number x) { out.q[at(i, c, K)] = single(head_.scale * x); });
    const Rounding& scales = roundings_.coarse_operand ? roundings_.operand : roundings_.single;
    for (std::int64_t c = 0; c < K; ++c) {
      const Number scaled = run_->round(scales, Site::query_decayed, head_.scale * query_[static_cast<std::size_t>(c)]);
      for (std::int64_t j = 0; j < V; ++j)
        adjoint_[at(c, j, V)] = single(adjoint_[at(c, j, V)] + scaled * d_o_[static_cast<std::size_t>(j)], Site::cotangent_state);
    }
  }

  void retreat_kda(std::int64_t t, std::int64_t i, ChunkGradients<Number>& out) {
    const std::int64_t K = head_.K, V = head_.V;
    const double exact_beta = head_.beta[static_cast<std::size_t>(t)];
    const Number beta = exact_beta + run_->absolute_error(Site::beta, Number{} + exact_beta,
                                                          head_.beta_error[static_cast<std::size_t>(t)] * std::abs(exact_beta));
    decayed_.resize(adjoint_.size());
    std::vector<Number> decay(static_cast<std::size_t>(K)), w(static_cast<std::size_t>(V)), m(w.size()), weighted(w.size());
    for (std::int64_t c = 0; c < K; ++c) {
      decay[static_cast<std::size_t>(c)] = alpha(t, c);
      for (std::int64_t j = 0; j < V; ++j)
        decayed_[at(c, j, V)] =
            single(decay[static_cast<std::size_t>(c)] * states_[static_cast<std::size_t>(i)][at(c, j, V)], Site::decayed_state);
    }
    const std::vector<Number>&key = this->key_operand(t), &X = state_as_operand(decayed_), &lambda = adjoint_as_operand();
    this->read_out(
        key, X, [&](std::int64_t j) { return Number{} - head_.v[at(t, j, V)]; },
        [&](std::int64_t, std::int64_t j, Number x) { w[static_cast<std::size_t>(j)] = this->as_operand(-x, Site::residual); });
    this->read_out(key, lambda, Base::nothing, [&](std::int64_t, std::int64_t j, Number x) {
      const auto column = static_cast<std::size_t>(j);
      m[column] = this->as_operand(x, Site::cotangent_residual);
      weighted[column] = this->as_operand(beta * x, Site::cotangent_weighted);
      out.v[at(i, j, V)] = single(beta * m[column]);
    });
    multiply(
        *run_, 1, [](std::int64_t) { return std::int64_t{1}; },
        [V](std::int64_t, std::int64_t) {
          return Range{0, V};
        },
        [](std::int64_t, std::int64_t) { return Number{}; }, [&](std::int64_t, std::int64_t j) { return m[static_cast<std::size_t>(j)]; },
        [&](std::int64_t j, std::int64_t) { return w[static_cast<std::size_t>(j)]; },
        [&](std::int64_t, std::int64_t, Number x) { out.beta[static_cast<std::size_t>(i)] = x; });
    rows_times(lambda, w, [&](std::int64_t c, Number x) { out.k[at(i, c, K)] = x; });
    rows_times(X, m, [&](std::int64_t c, Number x) {
      Number& written = out.k[at(i, c, K)];
      if (roundings_.decay_sums) {
        const Number k = key_[static_cast<std::size_t>(c)];
        const Number of_column = term(k, single(beta * written, Site::gate_terms)), of_row = term(k, single(beta * x, Site::gate_terms));
        add_to_decay(c, single(of_query(i, c, out) - single(of_column + of_row, Site::gate_terms), Site::gate_terms));
      }
      written = single(beta * single(written - x, Site::gate_terms));
    });
    if (roundings_.coarse_operand) { // k and beta m, a rounding each
      send_back(key, weighted);
    } else {
      std::vector<Number> written(key.size());
      for (std::size_t c = 0; c < key.size(); ++c) written[c] = beta * key[c];
      send_back(written, m);
    }
    gate_and_decay(decayed_, decay, i, out);
  }

  /// Lambda -= row column^T
  void send_back(const std::vector<Number>& row, const std::vector<Number>& column) {
    const std::int64_t K = head_.K, V = head_.V;
    for (std::int64_t c = 0; c < K; ++c)
      for (std::int64_t j = 0; j < V; ++j)
        adjoint_[at(c, j, V)] =
            single(adjoint_[at(c, j, V)] - row[static_cast<std::size_t>(c)] * column[static_cast<std::size_t>(j)], Site::cotangent_update);
  }

  template <class Factor> Number term(Factor factor, Number gradient) { return single(factor * gradient, Site::gate_terms); }
  Number of_query(std::int64_t i, std::int64_t c, const ChunkGradients<Number>& out) {
    return term(query_[static_cast<std::size_t>(c)], out.q[at(i, c, head_.K)]);
  }
  void add_to_decay(std::int64_t c, Number x) {
    Number& sum = decay_sum_[static_cast<std::size_t>(c)];
    sum = single(sum + x, Site::gate_sum);
  }

  /// sum over j of left_cj right_cj, both as the gate's gradient reads them
  template <class Store>
  void rows_of_products(const std::vector<Number>& left, const std::vector<Number>& right, std::int64_t c, Store&& store) {
    const std::int64_t V = head_.V;
    multiply(
        *run_, 1, [](std::int64_t) { return std::int64_t{1}; },
        [V](std::int64_t, std::int64_t) {
          return Range{0, V};
        },
        [](std::int64_t, std::int64_t) { return Number{}; },
        [&](std::int64_t, std::int64_t j) { return stored(left[at(c, j, V)], Site::state_operand); },
        [&](std::int64_t j, std::int64_t) { return stored(right[at(c, j, V)], Site::cotangent_state); },
        [&](std::int64_t, std::int64_t, Number x) { store(single(x)); });
  }

  /// E of the last state.
  void start_decay_sums() {
    decay_sum_.assign(static_cast<std::size_t>(head_.K), Number{});
    for (std::int64_t c = 0; c < head_.K; ++c)
      rows_of_products(state_, adjoint_, c, [&](Number x) { decay_sum_[static_cast<std::size_t>(c)] = x; });
  }

  /// A stored state as the gate's gradient reads it.
  Number stored(Number x, Site site) {
    const bool as_operand = roundings_.coarse_operand && !(roundings_.gradient_state.unit > roundings_.operand.unit);
    if (as_operand) return run_->round(roundings_.operand, site, x);
    return roundings_.gradient_state_rounds ? run_->round(roundings_.gradient_state, site, x) : x;
  }

  /// dg = rows of `states` . Lambda, or the running sum as it stands; then Lambda <- Diag(alpha) Lambda.
  void gate_and_decay(const std::vector<Number>& states, const std::vector<Number>& decay, std::int64_t i, ChunkGradients<Number>& out) {
    const std::int64_t K = head_.K, V = head_.V;
    for (std::int64_t c = 0; c < K; ++c) {
      if (roundings_.decay_sums)
        out.g[at(i, c, K)] = decay_sum_[static_cast<std::size_t>(c)];
      else
        rows_of_products(states, adjoint_, c, [&](Number x) { out.g[at(i, c, K)] = x; });
      for (std::int64_t j = 0; j < V; ++j)
        adjoint_[at(c, j, V)] = run_->round(roundings_.state, Site::state, decay[static_cast<std::size_t>(c)] * adjoint_[at(c, j, V)]);
    }
  }

  void retreat_dplr(std::int64_t t, std::int64_t i, ChunkGradients<Number>& out) {
    const std::int64_t K = head_.K, V = head_.V;
    const std::vector<Number>& before = states_[static_cast<std::size_t>(i)];
    std::vector<Number> decay(static_cast<std::size_t>(K)), w(static_cast<std::size_t>(V)), u(w.size());
    this->read_input(a_, head_.a, t, K, Site::second_remaining);
    this->read_input(b_, head_.b, t, K, Site::key_decayed);
    this->read_input(value_, head_.v, t, V, Site::weighted_value);
    decayed_.resize(adjoint_.size());
    for (std::int64_t c = 0; c < K; ++c) {
      const auto entry = static_cast<std::size_t>(c);
      decay[entry] = alpha(t, c);
      for (std::int64_t j = 0; j < V; ++j) decayed_[at(c, j, V)] = single(decay[entry] * before[at(c, j, V)], Site::decayed_state);
    }
    const std::vector<Number>&key = this->key_operand(t), &S = state_as_operand(before), &lambda = adjoint_as_operand();
    this->read_out(b_, S, Base::nothing,
                   [&](std::int64_t, std::int64_t j, Number x) { w[static_cast<std::size_t>(j)] = this->as_operand(-x, Site::residual); });
    this->read_out(a_, lambda, Base::nothing, [&](std::int64_t, std::int64_t j, Number x) {
      u[static_cast<std::size_t>(j)] = this->as_operand(x, Site::cotangent_residual);
    });
    this->read_out(key, lambda, Base::nothing, [&](std::int64_t, std::int64_t j, Number x) { out.v[at(i, j, V)] = single(x); });
    rows_times(lambda, w, [&](std::int64_t c, Number x) { out.a[at(i, c, K)] = single(x); });
    rows_times(lambda, value_, [&](std::int64_t c, Number x) { out.k[at(i, c, K)] = single(x); });
    rows_times(S, u, [&](std::int64_t c, Number x) { out.b[at(i, c, K)] = single(-x); });
    for (std::int64_t c = 0; c < K && roundings_.decay_sums; ++c) {
      const auto entry = static_cast<std::size_t>(c);
      const Number of_writes =
          single(term(head_.a[at(t, c, K)], out.a[at(i, c, K)]) + term(key_[entry], out.k[at(i, c, K)]), Site::gate_terms);
      add_to_decay(c, single(of_query(i, c, out) - of_writes, Site::gate_terms));
    }
    gate_and_decay(decayed_, decay, i, out);
    for (std::int64_t c = 0; c < K && roundings_.decay_sums; ++c) add_to_decay(c, term(head_.b[at(t, c, K)], out.b[at(i, c, K)]));
    send_back(b_, u);
  }

  std::vector<std::vector<Number>> states_; ///< before each token and after the last
  std::vector<Number> adjoint_, decayed_, decay_sum_;
  std::vector<Number> d_o_, state_operand_, adjoint_operand_;
};

} // namespace kdacheck
