#include "proved_bound.hpp"

#include "../budget_head.hpp"
#include "../cases/portable_math.hpp"
#include "proved_chunk.hpp"
#include "proved_general.hpp"
#include "proved_recurrence.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace kdacheck {
namespace {

/// A state that is kept in a coarse format may be rounded before the first token.
std::vector<double> error_at_start(const ProvedUnits& units, const Head& head) {
  std::vector<double> error(static_cast<std::size_t>(head.V), 0.0);
  if (!(units.state.unit > ProvedUnits::single)) return error;
  for (std::int64_t j = 0; j < head.V; ++j) {
    double square = 0, largest = 0;
    for (std::int64_t c = 0; c < head.K; ++c) {
      const double s = std::abs(head.state[static_cast<std::size_t>(c * head.V + j)]);
      square += s * s, largest = std::max(largest, s);
    }
    error[static_cast<std::size_t>(j)] =
        units.state.error(largest) + units.state.unit * std::sqrt(square) + static_cast<double>(head.K) * units.state.flush;
  }
  return error;
}

struct Envelope {
  Order order;
  std::vector<double> error; ///< [V]
};

/// `Walk` is ChunkBound or GeneralBound.
template <class Walk>
void bound_chunks(const Contract& contract, const ProvedUnits& units, const Head& head, double gate_floor, const std::vector<Order>& orders,
                  std::int64_t length, double* token, double* row) {
  Walk chunks(units, head, gate_floor);
  std::vector<Envelope> envelopes;
  for (Order order : orders) envelopes.push_back({order, error_at_start(units, head)});
  const bool wy = std::find(orders.begin(), orders.end(), Order::wy) != orders.end();
  std::vector<double> final(static_cast<std::size_t>(head.K), 0.0);
  for (std::int64_t first = 0; first < head.tokens; first += length) {
    const std::int64_t n = std::min(length, head.tokens - first), end = first + n;
    chunks.enter(first, n, wy);
    std::fill(final.begin(), final.end(), 0.0);
    for (Envelope& envelope : envelopes)
      chunks.bound(envelope.order, end % contract.chunk == 0 || end == head.tokens, envelope.error, token + first, final.data());
    chunks.leave();
  }
  for (std::int64_t c = 0; c < head.K; ++c) row[c] = std::max(row[c], final[static_cast<std::size_t>(c)]);
}

} // namespace

double resolving_floor(const Problem& problem, std::int64_t head) {
  if (problem.options.gate != GateForm::softplus || problem.A_log.empty()) return 0;
  return 4 * ProvedUnits::single * portable::exp(static_cast<double>(problem.A_log[static_cast<std::size_t>(head)]));
}

ProvedBound proved_bound(const Contract& contract, const Problem& problem, Submodels submodels) {
  const bool general = problem.options.rule == Rule::dplr, open = contract.order == Order::undeclared, all = takes_all(submodels);
  const bool undeclared = open && all;
  const auto& [B, T, H, HV, K, V] = problem.shape;
  const ProvedUnits units(contract);
  const std::int64_t chunk = std::max<std::int64_t>(contract.chunk, 1);
  const std::vector<Order> orders = undeclared ? std::vector{Order::residual_first, Order::wy}
                                    : open     ? std::vector{Order::residual_first}
                                               : std::vector{contract.order};
  ProvedBound result;
  result.token.assign(static_cast<std::size_t>(B * T * HV), 0.0);
  result.state_row.assign(static_cast<std::size_t>(sequence_count(problem) * HV * K), 0.0);
  if (contract.accumulate == Format::fp16) { // what such sums lose below 2^-24, term by term, and where they overflow, was not derived
    for (auto* entries : {&result.token, &result.state_row})
      std::fill(entries->begin(), entries->end(), std::numeric_limits<double>::infinity());
    return result;
  }
  std::vector<std::int64_t> columns(static_cast<std::size_t>(V));
  std::iota(columns.begin(), columns.end(), 0);
  for (const Sequence& sequence : sequences(problem))
    for (std::int64_t head = 0; head < HV; ++head) {
      const Head data = read_head(contract, problem, sequence, head, columns);
      const double gate_floor = resolving_floor(problem, head);
      std::vector<double> token(static_cast<std::size_t>(sequence.length), 0.0);
      double* row = result.state_row.data() + (sequence.index * HV + head) * K;
      if (undeclared || contract.order == Order::recurrence) {
        if (!general) bound_recurrence(units, data, gate_floor, chunk, token.data(), row);
        if (general || undeclared) bound_general_recurrence(units, data, gate_floor, chunk, token.data(), row);
      }
      if (contract.order != Order::recurrence)
        for (std::int64_t length : chunk_lengths(chunk, sequence.length)) {
          if (!general) bound_chunks<ChunkBound>(contract, units, data, gate_floor, orders, length, token.data(), row);
          if (general || undeclared) bound_chunks<GeneralBound>(contract, units, data, gate_floor, orders, length, token.data(), row);
          if (!all) break;
        }
      for (std::int64_t t = 0; t < sequence.length; ++t)
        result.token[static_cast<std::size_t>((sequence.first + t) * HV + head)] = token[static_cast<std::size_t>(t)];
    }
  return result;
}

} // namespace kdacheck
