#pragma once
// Numbers in (-1,1) that follow from (seed, stream, index) alone, with operations that IEEE 754 fixes.

#include <Random123/philox.h>

#include <cstdint>
#include <vector>

namespace kdacheck::modules {

/// `count` numbers limit x, x uniform: the centre of one of 2^32 equal parts of (-1,1), rounded to fp32.
inline std::vector<float> uniform_numbers(std::int64_t count, double limit, std::uint64_t seed, std::uint32_t stream) {
  const r123::Philox4x32::key_type key{{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)}};
  std::vector<float> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); i += 4) {
    const std::uint64_t block = i / 4;
    const auto bits = r123::Philox4x32{}(
        r123::Philox4x32::ctr_type{{static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32), stream, 0}}, key);
    for (std::size_t j = 0; j < 4 && i + j < values.size(); ++j) {
      const double centre = (static_cast<double>(bits[j]) + 0.5) * 0x1p-32;
      values[i + j] = static_cast<float>(limit * (2 * centre - 1));
    }
  }
  return values;
}

} // namespace kdacheck::modules
