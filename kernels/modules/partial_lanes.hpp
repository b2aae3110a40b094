#pragma once
// Sixteen numbers, or the last few of a row.

#include "../cpu/lanes.hpp"

#include <algorithm>
#include <cstring>

namespace kdacheck::modules {

/// The first `width` numbers (at most sixteen), zeros behind.
inline cpu::Lanes load_part(const float* from, std::int64_t width) {
  cpu::Lanes lanes{};
  std::memcpy(&lanes, from, static_cast<std::size_t>(std::min(width, cpu::lane_count)) * sizeof(float));
  return lanes;
}

/// Writes the first `width` numbers (at most sixteen).
inline void store_part(float* to, cpu::Lanes lanes, std::int64_t width) {
  std::memcpy(to, &lanes, static_cast<std::size_t>(std::min(width, cpu::lane_count)) * sizeof(float));
}

} // namespace kdacheck::modules
