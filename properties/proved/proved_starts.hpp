#pragma once
// Where the chunks of a reverse pass start, and what the forward pass leaves their states wrong by.

#include "../../kernels/contract.hpp"
#include "proved_recurrence.hpp"
#include "proved_solve.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

namespace kdacheck {

/// |x| of every entry.
inline BoundMatrix sizes(BoundMatrix from) {
  for (double& x : from.data) x = std::abs(x);
  return from;
}

inline BoundMatrix sum(const BoundMatrix& left, const BoundMatrix& right) {
  BoundMatrix result = left;
  for (std::size_t i = 0; i < result.data.size(); ++i) result.data[i] += right.data[i];
  return result;
}

/// Sums of the first rows of a matrix >= 0.
inline std::vector<double> row_sums(const BoundMatrix& matrix, std::int64_t rows) {
  std::vector<double> result(static_cast<std::size_t>(rows), 0.0);
  for (std::int64_t i = 0; i < rows; ++i) result[static_cast<std::size_t>(i)] = std::accumulate(matrix[i], matrix[i] + matrix.columns, 0.0);
  return result;
}

inline double column_norm(const BoundMatrix& matrix, std::int64_t rows, std::int64_t j) {
  double square = 0;
  for (std::int64_t c = 0; c < rows; ++c) square += matrix[c][j] * matrix[c][j];
  return std::sqrt(square);
}

inline BoundMatrix transposed(const BoundMatrix& from, std::int64_t rows) {
  BoundMatrix result;
  result.resize(from.columns, rows);
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t j = 0; j < from.columns; ++j) result[j][i] = from[i][j];
  return result;
}

/// sum over columns of |left_i| e
inline double weighted(const double* left, const std::vector<double>& e) {
  double result = 0;
  for (std::size_t j = 0; j < e.size(); ++j) result += std::abs(left[j]) * e[j];
  return result;
}

/// Exact states [K,V] of a head every `step` tokens from its start, and the largest errors [V] of their columns after a forward pass in
/// chunks of any of some lengths and orders, which may change at every state that it keeps.
struct ChunkStarts {
  std::int64_t step = 0;
  std::vector<BoundMatrix> state;
  std::vector<std::vector<double>> error;
};

/// `Bound`: ChunkBound or GeneralBound. `chunk`: tokens between two states that are rounded to the declared format. `lengths`:
/// chunk_lengths(), or the first of them.
template <class Bound>
ChunkStarts chunk_starts(const ProvedUnits& units, const Head& head, double gate_floor, std::int64_t chunk,
                         const std::vector<std::int64_t>& lengths, const std::vector<Order>& orders) {
  struct Walk : Bound {
    using Bound::Bound;
    const BoundMatrix& state() const { return this->state_; }
  };
  const auto at = [](std::int64_t i) { return static_cast<std::size_t>(i); };
  ChunkStarts starts;
  starts.step = lengths.back();
  const std::int64_t count = (head.tokens + starts.step - 1) / starts.step;
  starts.state.resize(at(std::max<std::int64_t>(count, 1)));
  starts.error.assign(starts.state.size(), std::vector<double>(at(head.V), 0.0));
  starts.error[0] = error_of_stored_start(units, head);
  starts.state[0].columns = head.V, starts.state[0].data = head.state;
  const bool wy = std::ranges::count(orders, Order::wy) > 0;
  std::vector<double> token(at(head.tokens)), row(at(head.K));
  std::vector<Walk> walks(lengths.size(), Walk(units, head, gate_floor));
  for (std::int64_t index = 1; index < count; ++index)
    for (std::size_t which = 0; which < lengths.size(); ++which) {
      const std::int64_t end = index * starts.step, length = lengths[which];
      if (end % length != 0) continue;
      walks[which].enter(end - length, length, wy);
      for (Order order : orders) {
        std::vector<double> error = starts.error[at((end - length) / starts.step)];
        walks[which].bound(order, end % chunk == 0, error, token.data() + end - length, row.data());
        for (std::size_t j = 0; j < error.size(); ++j) starts.error[at(index)][j] = std::max(starts.error[at(index)][j], error[j]);
      }
      walks[which].leave();
      if (length == starts.step) starts.state[at(index)] = walks[which].state();
    }
  return starts;
}

} // namespace kdacheck
