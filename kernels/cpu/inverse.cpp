#include "inverse.hpp"

#include "lanes.hpp"
#include "product.hpp"

#include <algorithm>

namespace kdacheck::cpu {

void invert_unit_lower(OperandFormat operands, std::int64_t n, const float* L, std::int64_t stride, float* T) {
  const std::int64_t columns = padded(n);
  for (std::int64_t i = 0; i < n; ++i) {
    std::fill(T + i * stride, T + i * stride + columns, 0.0f);
    T[i * stride + i] = 1;
  }
  solve_lower(n, columns, {L, stride, 1}, T, stride);
  for (std::int64_t i = 0; i < n; ++i) round_operand(operands, T + i * stride, i + 1);
}

void apply_inverse(OperandFormat operands, std::int64_t n, std::int64_t width, const float* L, const float* T, std::int64_t stride,
                   float* rows, float* scratch) {
  if (!T) return solve_lower(n, width, {L, stride, 1}, rows, width);
  round_rows(operands, rows, n, width);
  std::copy(rows, rows + n * width, scratch);
  product(n, width, n, {T, stride, 1}, scratch, width, Into::assign, rows, width, Part::lower);
}

void apply_inverse_transposed(OperandFormat operands, std::int64_t n, std::int64_t width, const float* L, const float* T,
                              std::int64_t stride, float* rows, float* scratch) {
  if (!T) return solve_lower_transposed(n, width, {L, stride, 1}, rows, width);
  round_rows(operands, rows, n, width);
  std::copy(rows, rows + n * width, scratch);
  product(n, width, n, {T, 1, stride}, scratch, width, Into::assign, rows, width, Part::upper);
}

} // namespace kdacheck::cpu
