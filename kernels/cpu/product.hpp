#pragma once
// Matrix products in fp32. Each element is one chain of multiply-adds in rising order of the inner index, whatever the
// number of rows: a row's result does not depend on the rows beside it.

#include <cstdint>

namespace kdacheck::cpu {

/// Element (i, m) of a left operand stands at data[i * row + m * step]; step = 1 is row-major, row = 1 transposed.
struct Left {
  const float* data;
  std::int64_t row, step;
};

enum class Into { assign, add, subtract };

/// Which inner indices m of row i take part. Entries outside are not read, neither left nor right of the product.
enum class Part {
  full,
  lower,        ///< m <= i
  strict_lower, ///< m < i
  upper,        ///< m >= i
  strict_upper, ///< m > i
};

/// target[i, :] (+)= sum_m left(i, m) right[m, :] for `rows` rows, `depth` inner indices and `columns` columns, a
/// multiple of sixteen.
void product(std::int64_t rows, std::int64_t columns, std::int64_t depth, Left left, const float* right, std::int64_t right_row, Into into,
             float* target, std::int64_t target_row, Part part = Part::full);

/// Solves (I + L) X = B in place by forward substitution, L the strictly lower part of `left` [rows, rows].
void solve_lower(std::int64_t rows, std::int64_t columns, Left left, float* b, std::int64_t b_row);

/// Solves (I + L)^T X = B in place by back substitution, L the strictly lower part of `left` [rows, rows].
void solve_lower_transposed(std::int64_t rows, std::int64_t columns, Left left, float* b, std::int64_t b_row);

/// to[c, i] = from[i, c] for rows x columns numbers.
void transpose(std::int64_t rows, std::int64_t columns, const float* from, std::int64_t from_row, float* to, std::int64_t to_row);

} // namespace kdacheck::cpu
