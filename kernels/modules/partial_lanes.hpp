#pragma once
// A register of numbers, or the last few of a row.

#include "../cpu/lanes.hpp"

#include <algorithm>
#include <cstring>

namespace kdacheck::modules {

/// The first `width` numbers (at most lane_count), zeros behind. A whole register is the usual case and no call of memcpy.
inline cpu::Lanes load_part(const float* from, std::int64_t width) {
  if (width >= cpu::lane_count) return cpu::load(from);
  cpu::Lanes lanes{};
  std::memcpy(&lanes, from, static_cast<std::size_t>(std::max<std::int64_t>(width, 0)) * sizeof(float));
  return lanes;
}

/// Writes the first `width` numbers (at most lane_count).
inline void store_part(float* to, cpu::Lanes lanes, std::int64_t width) {
  if (width >= cpu::lane_count) return cpu::store(to, lanes);
  std::memcpy(to, &lanes, static_cast<std::size_t>(std::max<std::int64_t>(width, 0)) * sizeof(float));
}

} // namespace kdacheck::modules
