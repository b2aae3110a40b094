// Tasks are bands of rows times blocks of columns, so that many tokens and one token alike use all threads. Weights whose
// columns are no multiple of sixteen are padded for the call.

#include "linear.hpp"

#include "../cpu/lanes.hpp"
#include "../cpu/product.hpp"
#include "gating_projection.hpp"

#include <algorithm>

namespace kdacheck::modules {
namespace {

constexpr std::int64_t band_rows = 16, block_columns = 256;
constexpr double worth_threads = 4e6; // multiply-adds

/// target [rows, columns] = left [rows, depth] right, right padded; calls store(first row, count, first column, width, block, stride).
template <class Store> void blocked_product(std::int64_t rows, std::int64_t depth, cpu::Left left, const PaddedMatrix& right, Store store) {
  const std::int64_t bands = (rows + band_rows - 1) / band_rows, blocks = (right.stride + block_columns - 1) / block_columns;
  const bool threads = static_cast<double>(rows) * static_cast<double>(depth) * static_cast<double>(right.columns) > worth_threads;
#pragma omp parallel for schedule(dynamic) collapse(2) if (threads)
  for (std::int64_t block = 0; block < blocks; ++block)
    for (std::int64_t band = 0; band < bands; ++band) {
      alignas(64) float result[band_rows * block_columns];
      const std::int64_t row = band * band_rows, column = block * block_columns;
      const std::int64_t count = std::min(band_rows, rows - row), width = std::min(block_columns, right.stride - column);
      cpu::product(count, width, depth, {left.data + row * left.row, left.row, left.step}, right.data + column, right.stride,
                   cpu::Into::assign, result, width);
      store(row, count, column, std::min(width, right.columns - column), static_cast<const float*>(result), width);
    }
}

std::vector<float> blocked_product(std::int64_t rows, std::int64_t depth, cpu::Left left, const PaddedMatrix& right) {
  std::vector<float> y(static_cast<std::size_t>(rows * right.columns));
  blocked_product(
      rows, depth, left, right,
      [&](std::int64_t row, std::int64_t count, std::int64_t column, std::int64_t width, const float* block, std::int64_t stride) {
        for (std::int64_t i = 0; i < count; ++i) std::copy_n(block + i * stride, width, y.data() + (row + i) * right.columns + column);
      });
  return y;
}

} // namespace

std::vector<float> linear(const Linear& l, std::int64_t rows, std::span<const float> x) {
  return blocked_product(rows, l.in, {x.data(), l.in, 1}, padded_matrix(l.weight, l.in, l.out));
}

std::vector<float> linear_weight_gradient(const Linear& l, std::int64_t rows, std::span<const float> x, std::span<const float> d_y) {
  return blocked_product(l.in, rows, {x.data(), 1, l.in}, padded_matrix(d_y, rows, l.out));
}

void add_linear_input_gradient(const Linear& l, std::int64_t rows, std::span<const float> d_y, std::span<float> d_x) {
  blocked_product(
      rows, l.out, {d_y.data(), l.out, 1}, padded_transpose(l.weight, l.in, l.out),
      [&](std::int64_t row, std::int64_t count, std::int64_t column, std::int64_t width, const float* block, std::int64_t stride) {
        for (std::int64_t i = 0; i < count; ++i)
          for (std::int64_t j = 0; j < width; ++j) d_x[static_cast<std::size_t>((row + i) * l.in + column + j)] += block[i * stride + j];
      });
}

} // namespace kdacheck::modules
