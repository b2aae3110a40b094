#pragma once
// A number that stands for all bits of tensors, where a test pins what every machine must draw.

#include <bit>
#include <cstdint>
#include <span>

namespace kdacheck::modules {

/// FNV-1a over the 32 bits of each number, in order; goes on from `seen`.
inline std::uint64_t bits_of(std::span<const float> values, std::uint64_t seen = 0xcbf29ce484222325ull) {
  for (const float x : values) seen = (seen ^ std::bit_cast<std::uint32_t>(x)) * 0x100000001b3ull;
  return seen;
}

} // namespace kdacheck::modules
