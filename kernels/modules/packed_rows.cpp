#include "packed_rows.hpp"

#include <algorithm>
#include <fmt/core.h>
#include <stdexcept>

namespace kdacheck::modules {

std::vector<float> PackedRows::gathered(std::span<const float> x, std::int64_t width) const {
  std::vector<float> packed;
  for (std::int64_t row : source) packed.insert(packed.end(), x.begin() + row * width, x.begin() + (row + 1) * width);
  return packed;
}

std::vector<float> PackedRows::scattered(std::span<const float> packed, std::int64_t width) const {
  if (all) return {packed.begin(), packed.end()};
  std::vector<float> x(static_cast<std::size_t>(rows * width), 0.0f);
  for (std::size_t i = 0; i < source.size(); ++i)
    std::copy_n(packed.begin() + static_cast<std::int64_t>(i) * width, width, x.begin() + source[i] * width);
  return x;
}

PackedRows packed_rows(std::int64_t B, std::int64_t T, std::span<const std::int64_t> cu_seqlens, std::span<const std::uint8_t> mask) {
  if (B < 0 || T < 0) throw std::invalid_argument(fmt::format("layer: B = {}, T = {} must not be negative", B, T));
  if (B == 0) throw std::invalid_argument("layer: there must be a sequence");
  PackedRows result;
  result.rows = B * T;
  result.cu_seqlens.assign(cu_seqlens.begin(), cu_seqlens.end());
  if (cu_seqlens.empty())
    for (std::int64_t b = 0; b <= B; ++b) result.cu_seqlens.push_back(b * T);
  else if (B != 1)
    throw std::invalid_argument(fmt::format("layer: packed sequences need B = 1, not {}", B));
  else if (cu_seqlens.size() < 2 || cu_seqlens.front() != 0 || cu_seqlens.back() != T || !std::ranges::is_sorted(cu_seqlens))
    throw std::invalid_argument(fmt::format("layer: cu_seqlens must rise from 0 to T = {}", T));
  if (mask.empty()) return result;
  if (static_cast<std::int64_t>(mask.size()) != B * T)
    throw std::invalid_argument(fmt::format("layer: mask has {} entries, its shape [B,T] needs {}", mask.size(), B * T));
  result.all = false;
  std::int64_t row = 0;
  for (std::int64_t& end : result.cu_seqlens) {
    for (; row < end; ++row)
      if (mask[static_cast<std::size_t>(row)]) result.source.push_back(row);
    end = static_cast<std::int64_t>(result.source.size());
  }
  return result;
}

} // namespace kdacheck::modules
