#pragma once
// Where the chunks of a reverse pass start, and what the forward pass leaves their states wrong by.

#include "../../kernels/contract.hpp"
#include "proved_recurrence.hpp"
#include "proved_solve.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <tuple>
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

/// Raises errors [V] of the state before token t to those of a state that was kept there, if any was.
inline void go_on_from(const ChunkStarts& kept, std::int64_t t, std::vector<double>& error) {
  if (t % kept.step != 0) return;
  const std::vector<double>& other = kept.error[static_cast<std::size_t>(t / kept.step)];
  for (std::size_t j = 0; j < error.size(); ++j) error[j] = std::max(error[j], other[j]);
}

template <class Bound> struct StateOf : Bound {
  using Bound::Bound;
  const BoundMatrix& state() const { return this->state_; }
};

/// `Bounds`: ChunkBound or GeneralBound or both, each of which a chunk may be taken through. `chunk`: tokens between two states that are
/// rounded to the declared format. `lengths`: chunk_lengths(), or the first of them. `by_token` [tokens + 1,V]: what a pass token by token
/// leaves states wrong by, from any of which chunks may go on; empty where there is none.
template <class... Bounds>
ChunkStarts chunk_starts(const ProvedUnits& units, const Head& head, double gate_floor, std::int64_t chunk,
                         const std::vector<std::int64_t>& lengths, const std::vector<Order>& orders,
                         const std::vector<double>& by_token = {}) {
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
  std::tuple<std::vector<StateOf<Bounds>>...> walks{
      std::vector<StateOf<Bounds>>(lengths.size(), StateOf<Bounds>(units, head, gate_floor))...};
  for (std::int64_t index = 1; index < count; ++index) {
    std::vector<double>& largest = starts.error[at(index)];
    const std::int64_t end = index * starts.step;
    const auto widen = [&](const double* error) {
      for (std::size_t j = 0; j < largest.size(); ++j) largest[j] = std::max(largest[j], error[j]);
    };
    if (!by_token.empty()) widen(by_token.data() + end * head.V);
    for (std::size_t which = 0; which < lengths.size(); ++which) {
      const std::int64_t length = lengths[which];
      if (end % length != 0) continue;
      const auto walk = [&](auto& bound) {
        bound.enter(end - length, length, wy);
        for (Order order : orders) {
          std::vector<double> error = starts.error[at((end - length) / starts.step)];
          bound.bound(order, end % chunk == 0, error, token.data() + end - length, row.data());
          widen(error.data());
        }
        bound.leave();
        if (length == starts.step) starts.state[at(index)] = bound.state();
      };
      std::apply([&](auto&... each) { (walk(each[which]), ...); }, walks);
    }
  }
  return starts;
}

/// What any forward pass leaves states wrong by: in chunks, token by token, or the one after the other, KDA through the general rule too.
/// `tokens` [tokens + 1,V]: of every state, if those in between are found again token by token from one that was kept.
struct MixedStarts {
  ChunkStarts chunks;
  std::vector<double> tokens;
};
MixedStarts mixed_starts(const ProvedUnits&, const Head&, double gate_floor, std::int64_t chunk, const std::vector<std::int64_t>& lengths,
                         const std::vector<Order>& orders);

} // namespace kdacheck
