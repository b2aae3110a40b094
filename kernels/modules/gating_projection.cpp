#include "gating_projection.hpp"

#include "../cpu/lanes.hpp"
#include "../cpu/product.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace kdacheck::modules {
namespace {

using cpu::padded;

float finite(double x) {
  constexpr double most = std::numeric_limits<float>::max();
  return static_cast<float>(std::clamp(x, -most, most));
}

void project_row_in_fp64(const Projections& weights, const float* x, float* hidden, float* logits) {
  std::vector<double> wide(static_cast<std::size_t>(weights.up.rows), 0.0);
  for (std::int64_t r = 0; r < weights.up.rows; ++r) {
    double sum = 0;
    for (std::int64_t d = 0; d < weights.down.rows; ++d) sum += static_cast<double>(x[d]) * weights.down.data[d * weights.down.stride + r];
    wide[static_cast<std::size_t>(r)] = sum;
    hidden[r] = finite(sum);
  }
  for (std::int64_t c = 0; c < weights.up.columns; ++c) {
    double sum = 0;
    for (std::int64_t r = 0; r < weights.up.rows; ++r)
      sum += wide[static_cast<std::size_t>(r)] * weights.up.data[r * weights.up.stride + c];
    logits[c] = finite(sum);
  }
}

} // namespace

PaddedMatrix padded_matrix(std::span<const float> values, std::int64_t rows, std::int64_t columns) {
  PaddedMatrix matrix{.storage = {}, .data = values.data(), .rows = rows, .columns = columns, .stride = padded(columns)};
  if (matrix.stride == columns) return matrix;
  matrix.storage.assign(static_cast<std::size_t>(rows * matrix.stride), 0.0f);
  for (std::int64_t i = 0; i < rows; ++i) std::copy_n(values.data() + i * columns, columns, matrix.storage.data() + i * matrix.stride);
  matrix.data = matrix.storage.data();
  return matrix;
}

PaddedMatrix padded_transpose(std::span<const float> values, std::int64_t rows, std::int64_t columns) {
  PaddedMatrix matrix{.storage = {}, .data = nullptr, .rows = columns, .columns = rows, .stride = padded(rows)};
  matrix.storage.assign(static_cast<std::size_t>(columns * matrix.stride), 0.0f);
  cpu::transpose(rows, columns, values.data(), columns, matrix.storage.data(), matrix.stride);
  matrix.data = matrix.storage.data();
  return matrix;
}

void project_down(const Projections& weights, const float* x, std::int64_t count, float* hidden) {
  const PaddedMatrix& down = weights.down;
  cpu::product(count, down.stride, down.rows, {x, down.rows, 1}, down.data, down.stride, cpu::Into::assign, hidden, down.stride);
}

void project_up(const Projections& weights, const float* hidden, std::int64_t count, float* logits) {
  const PaddedMatrix& up = weights.up;
  cpu::product(count, up.stride, up.rows, {hidden, weights.down.stride, 1}, up.data, up.stride, cpu::Into::assign, logits, up.stride);
}

void make_finite(const Projections& weights, const float* x, std::int64_t count, float* hidden, float* logits) {
  const auto& [down, up] = weights;
  if (all_finite(hidden, count * down.stride) && all_finite(logits, count * up.stride)) return;
  for (std::int64_t i = 0; i < count; ++i)
    if (!all_finite(hidden + i * down.stride, down.stride) || !all_finite(logits + i * up.stride, up.stride))
      project_row_in_fp64(weights, x + i * down.rows, hidden + i * down.stride, logits + i * up.stride);
}

bool all_finite(const float* values, std::int64_t count) {
  std::uint32_t found = 0; // without a branch, which would keep it from using registers whole
  for (std::int64_t i = 0; i < count; ++i) found |= (std::bit_cast<std::uint32_t>(values[i]) & 0x7f800000u) == 0x7f800000u ? 1u : 0u;
  return found == 0;
}

ColumnParameters column_parameters(const Gating& module, const GatingParameters& parameters) {
  const std::int64_t W = module.width(), columns_per_head = module.per_head ? 1 : module.K;
  ColumnParameters columns{std::vector<float>(static_cast<std::size_t>(padded(W)), 0.0f),
                           std::vector<float>(static_cast<std::size_t>(padded(W)), 0.0f)};
  for (std::size_t h = 0; h < parameters.A_log.size(); ++h)
    std::fill_n(columns.rate.begin() + static_cast<std::int64_t>(h) * columns_per_head, columns_per_head,
                static_cast<float>(std::exp(std::min(static_cast<double>(parameters.A_log[h]), 88.0))));
  std::ranges::copy(parameters.dt_bias, columns.bias.begin());
  return columns;
}

} // namespace kdacheck::modules
