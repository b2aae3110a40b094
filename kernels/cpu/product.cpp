// Tiles of 8 rows by 32 columns (by 8 where a register holds 8 numbers): their sums stay in registers, each loaded vector
// serves 8 rows. An element is one chain of multiply-adds, in the same order whatever the columns of a tile.

#include "product.hpp"

#include "lanes.hpp"

#include <algorithm>

namespace kdacheck::cpu {
namespace {

constexpr std::int64_t tile_rows = 8;
constexpr int tile_wide = lane_count == 16 ? 2 : 1; ///< 16 of 32 registers, or 8 of 16

/// Inner indices [from, to).
struct Depth {
  std::int64_t from, to;
};

/// The compiler places what it knows of a left operand in the multiply-adds themselves.
enum class Stored { by_row, by_column, otherwise };

template <int rows, int wide, bool subtract, Stored stored>
inline void tile(Depth depth, Left left, const float* right, std::int64_t right_row, bool fresh, float* target, std::int64_t target_row) {
  const std::int64_t row = stored == Stored::by_column ? 1 : left.row, step = stored == Stored::by_row ? 1 : left.step;
  Lanes sums[rows][wide];
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 2
    for (int w = 0; w < wide; ++w) sums[r][w] = fresh ? Lanes{} : load(target + r * target_row + w * lane_count);
  for (std::int64_t m = depth.from; m < depth.to; ++m) {
    Lanes values[wide];
#pragma GCC unroll 2
    for (int w = 0; w < wide; ++w) values[w] = load(right + m * right_row + w * lane_count);
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) {
      const float x = left.data[r * row + m * step];
      const Lanes factor = broadcast(subtract ? -x : x);
#pragma GCC unroll 2
      for (int w = 0; w < wide; ++w) sums[r][w] = multiply_add(factor, values[w], sums[r][w]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 2
    for (int w = 0; w < wide; ++w) store(target + r * target_row + w * lane_count, sums[r][w]);
}

template <int rows, bool subtract, Stored stored>
void band_of(std::int64_t columns, Depth depth, Left left, const float* right, std::int64_t right_row, bool fresh, float* target,
             std::int64_t target_row) {
  std::int64_t j = 0;
  for (; j + tile_wide * lane_count <= columns; j += tile_wide * lane_count)
    tile<rows, tile_wide, subtract, stored>(depth, left, right + j, right_row, fresh, target + j, target_row);
  if (j < columns) tile<rows, 1, subtract, stored>(depth, left, right + j, right_row, fresh, target + j, target_row);
}

template <int rows, bool subtract>
void signed_band(std::int64_t columns, Depth depth, Left left, const float* right, std::int64_t right_row, bool fresh, float* target,
                 std::int64_t target_row) {
  if (left.step == 1) return band_of<rows, subtract, Stored::by_row>(columns, depth, left, right, right_row, fresh, target, target_row);
  if (left.row == 1) return band_of<rows, subtract, Stored::by_column>(columns, depth, left, right, right_row, fresh, target, target_row);
  band_of<rows, subtract, Stored::otherwise>(columns, depth, left, right, right_row, fresh, target, target_row);
}

template <int rows>
void band(std::int64_t columns, Depth depth, Left left, float sign, const float* right, std::int64_t right_row, bool fresh, float* target,
          std::int64_t target_row) {
  if (sign < 0) return signed_band<rows, true>(columns, depth, left, right, right_row, fresh, target, target_row);
  signed_band<rows, false>(columns, depth, left, right, right_row, fresh, target, target_row);
}

Left from_row(Left left, std::int64_t i) { return {left.data + i * left.row, left.row, left.step}; }

Depth part_of_row(Part part, std::int64_t i, std::int64_t depth) {
  switch (part) {
  case Part::lower: return {0, std::min(i + 1, depth)};
  case Part::strict_lower: return {0, std::min(i, depth)};
  case Part::upper: return {i, depth};
  case Part::strict_upper: return {i + 1, depth};
  default: return {0, depth};
  }
}

} // namespace

void product(std::int64_t rows, std::int64_t columns, std::int64_t depth, Left left, const float* right, std::int64_t right_row, Into into,
             float* target, std::int64_t target_row, Part part) {
  const float sign = into == Into::subtract ? -1.0f : 1.0f;
  const bool fresh = into == Into::assign;
  std::int64_t i = 0;
  for (; i + tile_rows <= rows; i += tile_rows) {
    float* out = target + i * target_row;
    const Left here = from_row(left, i);
    if (part == Part::full) {
      band<tile_rows>(columns, {0, depth}, here, sign, right, right_row, fresh, out, target_row);
    } else if (part == Part::lower || part == Part::strict_lower) {
      band<tile_rows>(columns, {0, i}, here, sign, right, right_row, fresh, out, target_row);
      for (std::int64_t r = 0; r < tile_rows; ++r)
        band<1>(columns, {i, part_of_row(part, i + r, depth).to}, from_row(left, i + r), sign, right, right_row, false,
                out + r * target_row, target_row);
    } else {
      for (std::int64_t r = 0; r < tile_rows; ++r)
        band<1>(columns, {part_of_row(part, i + r, depth).from, std::min(i + tile_rows, depth)}, from_row(left, i + r), sign, right,
                right_row, fresh, out + r * target_row, target_row);
      band<tile_rows>(columns, {i + tile_rows, depth}, here, sign, right, right_row, false, out, target_row);
    }
  }
  for (; i < rows; ++i)
    band<1>(columns, part_of_row(part, i, depth), from_row(left, i), sign, right, right_row, fresh, target + i * target_row, target_row);
}

void solve_lower(std::int64_t rows, std::int64_t columns, Left left, float* b, std::int64_t b_row) {
  for (std::int64_t i = 0; i < rows; i += tile_rows) {
    const std::int64_t count = std::min(tile_rows, rows - i);
    if (count == tile_rows) {
      band<tile_rows>(columns, {0, i}, from_row(left, i), -1, b, b_row, false, b + i * b_row, b_row);
      for (std::int64_t r = 1; r < count; ++r)
        band<1>(columns, {i, i + r}, from_row(left, i + r), -1, b, b_row, false, b + (i + r) * b_row, b_row);
    } else {
      for (std::int64_t r = 0; r < count; ++r)
        band<1>(columns, {0, i + r}, from_row(left, i + r), -1, b, b_row, false, b + (i + r) * b_row, b_row);
    }
  }
}

void solve_lower_transposed(std::int64_t rows, std::int64_t columns, Left left, float* b, std::int64_t b_row) {
  const Left turned{left.data, left.step, left.row};
  const std::int64_t whole = rows / tile_rows * tile_rows;
  for (std::int64_t i = rows - 1; i >= whole; --i)
    band<1>(columns, {i + 1, rows}, from_row(turned, i), -1, b, b_row, false, b + i * b_row, b_row);
  for (std::int64_t i = whole - tile_rows; i >= 0; i -= tile_rows) {
    band<tile_rows>(columns, {i + tile_rows, rows}, from_row(turned, i), -1, b, b_row, false, b + i * b_row, b_row);
    for (std::int64_t r = i + tile_rows - 2; r >= i; --r)
      band<1>(columns, {r + 1, i + tile_rows}, from_row(turned, r), -1, b, b_row, false, b + r * b_row, b_row);
  }
}

void transpose(std::int64_t rows, std::int64_t columns, const float* from, std::int64_t from_row, float* to, std::int64_t to_row) {
  constexpr std::int64_t block = 16;
  for (std::int64_t i = 0; i < rows; i += block)
    for (std::int64_t c = 0; c < columns; c += block)
      for (std::int64_t x = c; x < std::min(c + block, columns); ++x)
        for (std::int64_t y = i; y < std::min(i + block, rows); ++y) to[x * to_row + y] = from[y * from_row + x];
}

} // namespace kdacheck::cpu
