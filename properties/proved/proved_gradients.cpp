// What bound_adjoint or bound_chunk_adjoint says of every head, as the gradients that a kernel writes: summed over the heads that share a
// key, taken through gates, betas and norms.
//
// A row x = r raw that the kernel normalises itself, r = 1 / sqrt(sum raw^2 + eps), has d raw_c = r (dx_c - x_c sum_d x_d dx_d). With
// theta, what the kernel's x errs by (proved_recurrence.cpp), dx^ within e of dx and rounded once more as an operand, r^ within norm:
//   r [(1 + t1) e_c + t1 |dx_c|  +  |x_c| sum_d |x_d| ((1 + t2) e_d + t2 |dx_d|)]
//   1 + t1 = (1 + norm) (1 + u_p) (1 + u)^4     1 + t2 = (1 + t1) (1 + theta)^2 (1 + g_{K+1})
// In fp16 x^, dx^ and their product with r err by w = 2^-25 each besides: the sum over d by p = (1 + t2) w sum (|dx_d| + e_d + |x_d| + w),
// and dx_c - x_c sum by w (1 + |x_c| + w) + |x_c| p + w (sum |x_d dx_d| + all that this sum errs by).

#include "proved_bound.hpp"

#include "../budget_head.hpp"
#include "proved_adjoint.hpp"
#include "proved_chunk.hpp"
#include "proved_chunk_adjoint.hpp"
#include "proved_general_adjoint.hpp"
#include "proved_solve.hpp"
#include "proved_starts.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>

namespace kdacheck {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }
std::size_t index(Input input) { return static_cast<std::size_t>(input); }

/// A sum that is written once all its terms are known.
struct Sum {
  double error = 0, size = 0;
  std::int64_t terms = 0;
  void add(double e, double s) { error += e, size += s, ++terms; }
  double bound(const ProvedUnits& units) const {
    return sane((error + (terms > 1 ? units.gamma(terms) : 0) * (size + error)) * ProvedUnits::up);
  }
};

/// Through a factor that errs itself, and a product.
double through(double factor, double factor_error, double error, double size) {
  return std::abs(factor) * error + factor_error * (size + error) +
         2 * ProvedUnits::single * (std::abs(factor) + factor_error) * (size + error);
}

/// Rows that the kernel normalises, and what they were multiplied by: [rows,K], [rows].
struct Normalised {
  std::vector<double> x, factor;
};

/// Largest error of a row of d raw, from the K sums of that of x.
double through_norm(const ProvedUnits& units, const Normalised& rows, std::int64_t row, std::int64_t K, const Sum* d) {
  constexpr double u = ProvedUnits::single;
  const double norm = units.norm(K), operand = units.operand.unit, theta = (1 + norm) * (1 + operand) - 1;
  const double own = (1 + norm) * (1 + operand) * (1 + 4.1 * u) - 1,
               projected = (1 + own) * (1 + theta) * (1 + theta) * (1 + units.gamma(K + 1)) - 1;
  const double* x = rows.x.data() + row * K;
  double sum = 0, worst = 0, size = 0, terms = 0;
  for (std::int64_t c = 0; c < K; ++c) {
    const double of_d = d[c].bound(units), y = std::abs(x[c]);
    sum += y * ((1 + projected) * of_d + projected * d[c].size);
    size += y * d[c].size, terms += d[c].size + of_d + y;
    if (!(d[c].size + of_d <= units.operand.limit)) return infinity;
  }
  if (!(size + sum <= units.operand.limit)) return infinity;
  const double w = units.operand.flush > 0x1p-100 ? units.operand.flush : 0,
               lost = (1 + projected) * w * (terms + static_cast<double>(K) * w);
  sum += (1 + theta) * lost;
  for (std::int64_t c = 0; c < K; ++c) {
    const double apart = w * (1 + own) * (1 + std::abs(x[c]) + w + size + sum);
    worst = std::max(worst, sane(rows.factor[at(row)] * ((1 + own) * d[c].bound(units) + own * d[c].size + std::abs(x[c]) * sum + apart)));
  }
  return worst + 0x1p-126 * static_cast<double>(4 * K);
}

/// Sums in fp16 were not derived.
bool covered(const Contract& contract) { return contract.accumulate != Format::fp16; }

/// The larger of two bounds on the same gradients.
void widen(AdjointBound& bound, const AdjointBound& other) {
  for (auto rows : {&AdjointBound::q, &AdjointBound::k, &AdjointBound::a, &AdjointBound::b, &AdjointBound::g, &AdjointBound::v,
                    &AdjointBound::beta, &AdjointBound::state})
    for (std::size_t i = 0; i < (bound.*rows).size(); ++i) (bound.*rows)[i] = std::max((bound.*rows)[i], (other.*rows)[i]);
}

AdjointBound bound_head(const Contract& contract, const ProvedUnits& units, const Head& head, double gate_floor,
                        const std::vector<double>& d_o, const std::vector<double>& d_state, Submodels submodels) {
  const std::int64_t chunk = std::max<std::int64_t>(contract.chunk, 1);
  const bool open = contract.order == Order::undeclared, all = takes_all(submodels);
  if (contract.order == Order::recurrence) return bound_adjoint(units, head, gate_floor, chunk, d_o, d_state);
  std::vector<std::int64_t> lengths = chunk_lengths(chunk, head.tokens);
  if (!all) lengths.resize(1);
  const std::vector<Order> orders = open && all ? std::vector{Order::residual_first, Order::wy}
                                    : open      ? std::vector{Order::residual_first}
                                                : std::vector{contract.order};
  std::optional<AdjointBound> result;
  const auto add = [&](AdjointBound bound) { result ? widen(*result, bound) : void(result = std::move(bound)); };
  const auto in_chunks = [&](const ChunkStarts& starts, auto&& bound_of) {
    for (std::int64_t length : lengths) add(bound_of(units, head, gate_floor, chunk, length, orders, starts, d_o, d_state));
  };
  if (open && all) { // any forward pass before any reverse one
    const MixedStarts starts = mixed_starts(units, head, gate_floor, chunk, lengths, orders);
    add(bound_adjoint(units, head, gate_floor, chunk, d_o, d_state, &starts.tokens));
    if (!head.dplr) add(bound_adjoint_through_general(units, head, gate_floor, chunk, d_o, d_state, &starts.tokens));
    if (!head.dplr) in_chunks(starts.chunks, bound_chunk_adjoint);
    in_chunks(starts.chunks, bound_general_adjoint);
  } else if (head.dplr) {
    in_chunks(chunk_starts<GeneralBound>(units, head, gate_floor, chunk, lengths, orders), bound_general_adjoint);
  } else {
    in_chunks(chunk_starts<ChunkBound>(units, head, gate_floor, chunk, lengths, orders), bound_chunk_adjoint);
  }
  return *result;
}

} // namespace

ProvedBound proved_gradient_bound(const Contract& contract, const Problem& problem, Submodels submodels) {
  ProvedBound result;
  if (!covered(contract)) return result;
  const auto& [B, T, H, HV, K, V] = problem.shape;
  const std::int64_t N = sequence_count(problem), rows = B * T;
  const bool general = problem.options.rule == Rule::dplr;
  const ProvedUnits units(contract);
  const auto of = [&](Input input) -> std::vector<double>& { return result.gradient[index(input)]; };
  const auto prepare = [&](Input input, std::int64_t groups) {
    if (!problem[input].empty()) of(input).assign(at(groups), 0.0);
  };
  prepare(Input::q, rows * H), prepare(Input::k, rows * H), prepare(Input::v, rows * HV), prepare(Input::g, rows * HV);
  prepare(Input::a, rows * HV), prepare(Input::b, rows * HV), prepare(Input::beta, rows * HV);
  prepare(Input::initial_state, N * HV * K), prepare(Input::A_log, HV), prepare(Input::dt_bias, HV * K);
  std::vector<Sum> queries(at(rows * H * K)), keys(queries), rates(at(HV)), biases(at(HV * K));
  Normalised of_queries, of_keys;
  for (Normalised* each : {&of_queries, &of_keys})
    if (problem.options.l2norm) each->x.resize(queries.size()), each->factor.resize(at(rows * H));
  std::vector<std::int64_t> columns(at(V));
  std::iota(columns.begin(), columns.end(), 0);
  const auto largest = [](double& bound, double error) { bound = std::max(bound, sane(error * ProvedUnits::up)); };
  for (const Sequence& sequence : sequences(problem))
    for (std::int64_t head = 0; head < HV; ++head) {
      const Head data = read_head(contract, problem, sequence, head, columns);
      std::vector<double> d_o, d_state;
      for (std::int64_t t = 0; t < (problem.d_o.empty() ? 0 : sequence.length); ++t) {
        const float* row = problem.d_o.data() + ((sequence.first + t) * HV + head) * V;
        d_o.insert(d_o.end(), row, row + V);
      }
      if (!problem.d_final_state.empty()) {
        const float* matrix = problem.d_final_state.data() + (sequence.index * HV + head) * K * V;
        d_state.assign(matrix, matrix + K * V);
      }
      const AdjointBound bound = bound_head(contract, units, data, resolving_floor(problem, head), d_o, d_state, submodels);
      for (std::int64_t t = 0; t < sequence.length; ++t) {
        const std::int64_t row = (sequence.first + t) * HV + head, shared = (sequence.first + t) * H + head / (HV / H);
        if (!of(Input::v).empty()) largest(of(Input::v)[at(row)], bound.v[at(t)]);
        if (!of(Input::beta).empty())
          largest(of(Input::beta)[at(row)],
                  problem.options.beta == BetaForm::value
                      ? bound.beta[at(t)]
                      : through(data.beta_slope[at(t)], data.beta_slope_error[at(t)], bound.beta[at(t)], bound.beta_size[at(t)]));
        if (problem.options.l2norm) {
          std::copy_n(data.q.begin() + t * K, K, of_queries.x.begin() + shared * K), of_queries.factor[at(shared)] = data.q_norm[at(t)];
          std::copy_n(data.k.begin() + t * K, K, of_keys.x.begin() + shared * K), of_keys.factor[at(shared)] = data.k_norm[at(t)];
        }
        for (std::int64_t c = 0; c < K; ++c) {
          const std::size_t entry = at(t * K + c);
          queries[at(shared * K + c)].add(bound.q[entry], bound.q_size[entry]);
          keys[at(shared * K + c)].add(bound.k[entry], bound.k_size[entry]);
          if (general) largest(of(Input::a)[at(row)], bound.a[entry]), largest(of(Input::b)[at(row)], bound.b[entry]);
          const bool plain = problem.options.gate == GateForm::log_decay || problem.options.gate == GateForm::absent;
          const double slope = plain ? 1 : data.gate_slope[entry], slope_error = plain ? 0 : data.gate_slope_error[entry];
          const double g = plain ? bound.g[entry] : through(slope, slope_error, bound.g[entry], bound.g_size[entry]);
          if (!of(Input::g).empty()) largest(of(Input::g)[at(row)], g);
          biases[at(head * K + c)].add(g, std::abs(slope) * bound.g_size[entry]);
          if (!data.rate_slope.empty())
            rates[at(head)].add(through(data.rate_slope[entry], data.rate_slope_error[entry], bound.g[entry], bound.g_size[entry]),
                                std::abs(data.rate_slope[entry]) * bound.g_size[entry]);
        }
      }
      for (std::int64_t c = 0; c < K && !of(Input::initial_state).empty(); ++c)
        largest(of(Input::initial_state)[at((sequence.index * HV + head) * K + c)], bound.state[at(c)]);
    }
  for (std::int64_t row = 0; row < rows * H; ++row) {
    if (problem.options.l2norm) {
      largest(of(Input::q)[at(row)], through_norm(units, of_queries, row, K, queries.data() + row * K));
      largest(of(Input::k)[at(row)], through_norm(units, of_keys, row, K, keys.data() + row * K));
      continue;
    }
    for (std::int64_t c = 0; c < K; ++c) {
      largest(of(Input::q)[at(row)], queries[at(row * K + c)].bound(units));
      largest(of(Input::k)[at(row)], keys[at(row * K + c)].bound(units));
    }
  }
  for (std::size_t i = 0; i < of(Input::A_log).size(); ++i) of(Input::A_log)[i] = rates[i].bound(units);
  for (std::size_t i = 0; i < of(Input::dt_bias).size(); ++i) of(Input::dt_bias)[i] = biases[i].bound(units);
  return result;
}

} // namespace kdacheck
