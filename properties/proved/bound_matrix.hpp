#pragma once
// Dense fp64 matrices by rows, and the products that the proved bounds are made of.

#include "../perturbed/lanes.hpp"

#include <cstdint>
#include <cstring>
#include <vector>

namespace kdacheck {

struct BoundMatrix {
  std::int64_t columns = 0;
  std::vector<double> data;

  void resize(std::int64_t rows, std::int64_t width) {
    columns = width;
    data.assign(static_cast<std::size_t>(rows * width), 0.0);
  }
  double* operator[](std::int64_t i) { return data.data() + i * columns; }
  const double* operator[](std::int64_t i) const { return data.data() + i * columns; }
};

/// target[j] += sum over m in [from, to) of factor(m) right[m][j], four rows at a time.
template <class Factor>
inline void add_rows(double* __restrict target, std::int64_t from, std::int64_t to, const BoundMatrix& right, Factor&& factor) {
  const std::int64_t width = right.columns;
  std::int64_t m = from;
  for (; m + 4 <= to; m += 4) {
    const double a = factor(m), b = factor(m + 1), c = factor(m + 2), d = factor(m + 3);
    const double* __restrict x = right[m];
    const double* __restrict y = right[m + 1];
    const double* __restrict z = right[m + 2];
    const double* __restrict w = right[m + 3];
    for (std::int64_t j = 0; j < width; ++j) target[j] += (a * x[j] + b * y[j]) + (c * z[j] + d * w[j]);
  }
  for (; m < to; ++m) {
    const double a = factor(m);
    const double* __restrict x = right[m];
    for (std::int64_t j = 0; j < width; ++j) target[j] += a * x[j];
  }
}

/// Eight numbers of a row from c on, zeros behind its last. Sums over a row run in these lanes, not in those that a compiler picks for a
/// machine: a bound has the same bits on all of them.
inline Lanes lanes_at(const double* row, std::int64_t c, std::int64_t width) {
  Lanes result{};
  if (width - c >= draws_per_batch)
    std::memcpy(&result, row + c, sizeof result);
  else
    std::memcpy(&result, row + c, static_cast<std::size_t>(width - c) * sizeof(double));
  return result;
}

inline double total(const Lanes& x) { return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7])); }

/// into <- left right for `rows` rows; lower: left is lower triangular.
inline void product(const BoundMatrix& left, const BoundMatrix& right, std::int64_t rows, std::int64_t depth, BoundMatrix& into,
                    bool lower = false) {
  into.resize(rows, right.columns);
  for (std::int64_t i = 0; i < rows; ++i) add_rows(into[i], 0, lower ? i + 1 : depth, right, [&](std::int64_t m) { return left[i][m]; });
}

} // namespace kdacheck
