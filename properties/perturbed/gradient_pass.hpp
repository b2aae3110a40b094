#pragma once
// One perturbed (or noise-free) forward and backward pass through the value heads that share a q/k head.

#include "dplr_adjoint_run.hpp"
#include "kda_adjoint_run.hpp"
#include "recurrence_adjoint_run.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace kdacheck::gradient_pass {

inline constexpr std::int64_t recurrence_span = 16; // tokens whose states are kept at a time

inline std::size_t at(std::int64_t i, std::int64_t j, std::int64_t width) { return static_cast<std::size_t>(i * width + j); }

inline std::vector<Order> backward_orders(const Contract& contract, bool coarse) {
  if (contract.order != Order::undeclared) return {contract.order};
  if (coarse) return {Order::residual_first, Order::wy};
  return {Order::residual_first, Order::wy, Order::recurrence};
}

/// Everything about one value head that all trials share.
struct PreparedHead {
  Head head;
  std::int64_t index = 0;
  std::vector<double> d_o;       ///< [tokens,V], empty: zero
  std::vector<double> cotangent; ///< [K,V] of the final state
  bool exact_d_o = true;
  std::vector<ChunkFactors> chunks, spans; ///< by chunk, and by span of the recurrence
};

inline PreparedHead prepare(const Contract& contract, const Problem& problem, const Sequence& sequence, std::int64_t head) {
  const auto& [B, T, H, HV, K, V] = problem.shape;
  PreparedHead p;
  std::vector<std::int64_t> columns(static_cast<std::size_t>(V));
  for (std::int64_t j = 0; j < V; ++j) columns[static_cast<std::size_t>(j)] = j;
  p.head = read_head(contract, problem, sequence, head, columns);
  p.index = head;
  if (!problem.d_o.empty())
    for (std::int64_t t = 0; t < sequence.length; ++t)
      for (std::int64_t j = 0; j < V; ++j) {
        const float x = problem.d_o[static_cast<std::size_t>(((sequence.first + t) * HV + head) * V + j)];
        p.d_o.push_back(x);
        p.exact_d_o = p.exact_d_o && round_to(contract.operands, x) == x;
      }
  p.cotangent.assign(static_cast<std::size_t>(K * V), 0.0);
  if (!problem.d_final_state.empty())
    for (std::size_t i = 0; i < p.cotangent.size(); ++i)
      p.cotangent[i] = problem.d_final_state[static_cast<std::size_t>((sequence.index * HV + head) * K * V) + i];
  const std::int64_t C = std::max<std::int64_t>(contract.chunk, 1);
  for (std::int64_t first = 0; first < sequence.length; first += C)
    p.chunks.push_back(chunk_factors(p.head, first, std::min(C, sequence.length - first), contract.scores));
  for (std::int64_t first = 0; first < sequence.length; first += recurrence_span) {
    p.spans.emplace_back();
    p.spans.back().first = first;
    p.spans.back().n = std::min(recurrence_span, sequence.length - first);
  }
  return p;
}

/// One value head forward, then backward.
template <class Run> class Pass {
public:
  using Number = typename Run::Number;

  /// The forward pass; `observe(span, rows of o)` sees what it gives.
  template <class Observe>
  Pass(const Contract& contract, const Roundings& roundings, const PreparedHead& prepared, Order order, Run& run, Observe&& observe)
      : prepared_(prepared), order_(order), run_(run), kda_(prepared.head, roundings), dplr_(prepared.head, roundings),
        recurrence_(prepared.head, roundings, contract.chunk) {
    std::vector<Number> state;
    for (double x : prepared.head.state) state.push_back(Number{} + x);
    for (double x : prepared.cotangent) cotangent_.push_back(Number{} + x);
    for (const ChunkFactors& f : spans()) {
      states_.push_back(state);
      if (order == Order::recurrence) {
        recurrence_.advance(f.first, f.n, run, state);
        observe(f, recurrence_.output());
      } else if (prepared.head.dplr) {
        dplr_.advance(f, order, run, state);
        observe(f, dplr_.output());
      } else {
        kda_.advance(f, order, run, state);
        observe(f, kda_.output());
      }
    }
    final_state_ = std::move(state);
  }

  const std::vector<ChunkFactors>& spans() const { return order_ == Order::recurrence ? prepared_.spans : prepared_.chunks; }

  /// Gradients of a span; to be called from the last to the first.
  ChunkGradients<Number>& retreat(std::size_t span) {
    const ChunkFactors& f = spans()[span];
    if (order_ == Order::recurrence) {
      recurrence_.retreat(f.first, f.n, run_, states_[span], prepared_.d_o, cotangent_, gradients_);
    } else if (prepared_.head.dplr) {
      dplr_.retreat(f, order_, run_, states_[span], prepared_.d_o, prepared_.exact_d_o, cotangent_, gradients_);
    } else {
      kda_.retreat(f, order_, run_, states_[span], prepared_.d_o, prepared_.exact_d_o, cotangent_, gradients_);
    }
    return gradients_;
  }

  const std::vector<Number>& cotangent() const { return cotangent_; }     ///< [K,V], of the initial state in the end
  const std::vector<Number>& final_state() const { return final_state_; } ///< [K,V]

private:
  const PreparedHead& prepared_;
  Order order_;
  Run& run_;
  KdaAdjointRun<Run> kda_;
  DplrAdjointRun<Run> dplr_;
  RecurrenceAdjointRun<Run> recurrence_;
  std::vector<std::vector<Number>> states_; ///< before each span
  std::vector<Number> cotangent_, final_state_;
  ChunkGradients<Number> gradients_;
};

/// What happens to the gradients of q, k, g, beta once the core has them: norms, gates and sigmoids, in fp32.
template <class Run> class Outward {
public:
  using Number = typename Run::Number;
  Outward(const Roundings& roundings, Run& run) : roundings_(roundings), run_(run) {}

  Number single(Number x) { return run_.round(roundings_.single, Site::gradient, x); }

  /// x * slope, where the slope errs by up to `error`.
  Number through(Number x, double slope, double error) {
    if (slope == 1 && error == 0) return x;
    return single(x * (slope + run_.absolute_error(Site::gate_sum, x, error)));
  }

  /// d x of y = x * norm(x) in place, for one row; y is the exact normalised row.
  void normalised(Number* row, const double* y, double norm, std::int64_t K, double norm_error) {
    Number dot{};
    const Number common = 1.0 + run_.absolute_error(Site::norm, Number{} + y[0], norm_error);
    for (std::int64_t c = 0; c < K; ++c) dot = single(dot + run_.round(roundings_.operand, Site::key, common * y[c]) * row[c]);
    for (std::int64_t c = 0; c < K; ++c) row[c] = single(norm * common * single(row[c] - dot * (common * y[c])));
  }

private:
  const Roundings& roundings_;
  Run& run_;
};

/// Sums of d A_log and d dt_bias over tokens and sequences, per head.
template <class Number> struct ParameterSums {
  std::vector<Number> A_log, dt_bias;
};

/// Handles the spans of one head after another: writes gradients of tokens as they come, keeps q and k of the group.
template <class Run> class GroupGradients {
public:
  using Number = typename Run::Number;

  GroupGradients(const Problem& problem, const Sequence& sequence, std::int64_t key_head, const Roundings& roundings, Run& run)
      : problem_(problem), sequence_(sequence), key_head_(key_head), outward_(roundings, run),
        q_(static_cast<std::size_t>(sequence.length * problem.shape.K)), k_(q_.size()) {}

  /// Gradients of one span of one value head; emit(input, first element, count, values).
  template <class Emit>
  void take(const PreparedHead& p, const ChunkFactors& f, ChunkGradients<Number>& d, ParameterSums<Number>& sums, Emit&& emit) {
    const auto& [B, T, H, HV, K, V] = problem_.shape;
    const Head& head = p.head;
    for (std::int64_t i = 0; i < f.n; ++i) {
      const std::int64_t t = f.first + i, row = (sequence_.first + t) * HV + p.index;
      for (std::int64_t c = 0; c < K; ++c) {
        const std::size_t entry = at(t, c, K), here = at(i, c, K);
        q_[entry] = HV > H ? outward_.single(q_[entry] + d.q[here]) : d.q[here];
        k_[entry] = HV > H ? outward_.single(k_[entry] + d.k[here]) : d.k[here];
        if (!head.rate_slope.empty()) {
          Number& sum = sums.A_log[static_cast<std::size_t>(p.index)];
          sum = outward_.single(sum + outward_.through(d.g[here], head.rate_slope[entry], head.rate_slope_error[entry]));
        }
        d.g[here] = outward_.through(d.g[here], head.gate_slope[entry], head.gate_slope_error[entry]);
        if (!sums.dt_bias.empty()) {
          Number& sum = sums.dt_bias[at(p.index, c, K)];
          sum = outward_.single(sum + d.g[here]);
        }
      }
      emit(Input::v, row * V, V, &d.v[at(i, 0, V)]);
      if (!problem_.g.empty()) emit(Input::g, row * K, K, &d.g[at(i, 0, K)]);
      if (head.dplr) {
        emit(Input::a, row * K, K, &d.a[at(i, 0, K)]);
        emit(Input::b, row * K, K, &d.b[at(i, 0, K)]);
      } else {
        const auto token = static_cast<std::size_t>(t);
        Number& beta = d.beta[static_cast<std::size_t>(i)];
        beta = outward_.single(outward_.through(beta, head.beta_slope[token], head.beta_slope_error[token]));
        emit(Input::beta, row, 1, &beta);
      }
    }
  }

  /// Gradients of q and k once every value head of the group has been taken; `head` is any of them.
  template <class Emit> void finish(const Head& head, Emit&& emit) {
    const std::int64_t H = problem_.shape.H, K = problem_.shape.K;
    for (std::int64_t t = 0; t < sequence_.length; ++t) {
      if (head.normalised) {
        outward_.normalised(&q_[at(t, 0, K)], &head.q[at(t, 0, K)], head.q_norm[static_cast<std::size_t>(t)], K, head.norm_error);
        outward_.normalised(&k_[at(t, 0, K)], &head.k[at(t, 0, K)], head.k_norm[static_cast<std::size_t>(t)], K, head.norm_error);
      }
      const std::int64_t row = (sequence_.first + t) * H + key_head_;
      emit(Input::q, row * K, K, &q_[at(t, 0, K)]);
      emit(Input::k, row * K, K, &k_[at(t, 0, K)]);
    }
  }

private:
  const Problem& problem_;
  const Sequence& sequence_;
  std::int64_t key_head_;
  Outward<Run> outward_;
  std::vector<Number> q_, k_;
};

/// The value heads that share a q/k head, one sequence.
struct PreparedGroup {
  std::int64_t key_head = 0;
  std::vector<PreparedHead> heads;
};

inline PreparedGroup prepare_group(const Contract& contract, const Problem& problem, const Sequence& sequence, std::int64_t key_head) {
  PreparedGroup group{key_head, {}};
  const std::int64_t size = problem.shape.HV / problem.shape.H;
  for (std::int64_t head = key_head * size; head < (key_head + 1) * size; ++head)
    group.heads.push_back(prepare(contract, problem, sequence, head));
  return group;
}

/// Nobody looks at what the forward pass gives.
struct NoObserver {
  void outputs(const auto&...) const {}
  void final_state(const auto&...) const {}
};

/// One batch of draws (or the noise-free run) through a group: emit(input, first element, count, values).
template <class Run, class Emit, class Observer = NoObserver>
void run_group(const Contract& contract, const Roundings& roundings, const Problem& problem, const Sequence& sequence,
               const PreparedGroup& group, Order order, Run& run, ParameterSums<typename Run::Number>& sums, Emit&& emit,
               const Observer& observe = {}) {
  const auto& [B, T, H, HV, K, V] = problem.shape;
  GroupGradients<Run> gradients(problem, sequence, group.key_head, roundings, run);
  for (const PreparedHead& prepared : group.heads) {
    Pass<Run> pass(contract, roundings, prepared, order, run,
                   [&](const ChunkFactors& f, const std::vector<typename Run::Number>& rows) { observe.outputs(prepared, f, rows); });
    observe.final_state(prepared, pass.final_state());
    for (std::size_t span = pass.spans().size(); span-- > 0;) gradients.take(prepared, pass.spans()[span], pass.retreat(span), sums, emit);
    if (problem.initial_state.empty()) continue;
    for (std::int64_t c = 0; c < K; ++c) {
      const std::int64_t row = (sequence.index * HV + prepared.index) * K + c;
      emit(Input::initial_state, row * V, V, &pass.cotangent()[at(c, 0, V)]);
    }
  }
  gradients.finish(group.heads.front().head, emit);
}

template <class Number> ParameterSums<Number> parameter_sums(const Problem& problem) {
  ParameterSums<Number> sums;
  sums.A_log.resize(problem.A_log.size());
  sums.dt_bias.resize(problem.dt_bias.size());
  return sums;
}

template <class Number, class Emit> void emit_parameters(const ParameterSums<Number>& sums, Emit&& emit) {
  for (std::size_t i = 0; i < sums.A_log.size(); ++i) emit(Input::A_log, static_cast<std::int64_t>(i), 1, &sums.A_log[i]);
  for (std::size_t i = 0; i < sums.dt_bias.size(); ++i) emit(Input::dt_bias, static_cast<std::int64_t>(i), 1, &sums.dt_bias[i]);
}

} // namespace kdacheck::gradient_pass
