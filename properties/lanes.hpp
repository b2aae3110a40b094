#pragma once
// Eight noise draws side by side: every number of a perturbed run is a vector of the same quantity in eight draws.

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>

namespace kdacheck {

inline constexpr int draws_per_batch = 8;
typedef double Lanes __attribute__((vector_size(8 * draws_per_batch)));
typedef std::uint64_t LaneBits __attribute__((vector_size(8 * draws_per_batch)));

inline Lanes lanes(double x) { return Lanes{} + x; }

inline Lanes absolute(Lanes x) { return std::bit_cast<Lanes>(std::bit_cast<LaneBits>(x) & 0x7fffffffffffffffull); }
inline Lanes minimum(Lanes x, double y) { return x < y ? x : lanes(y); }

/// e^min(x, cap) of every draw.
inline double exponential_below(double x, double cap) { return std::exp(std::min(x, cap)); }
inline Lanes exponential_below(Lanes x, double cap) {
  for (int lane = 0; lane < draws_per_batch; ++lane) x[lane] = exponential_below(x[lane], cap);
  return x;
}

/// Uniform in [-1, 1) from the upper 52 bits.
inline Lanes symmetric(LaneBits bits) { return std::bit_cast<Lanes>((bits >> 12) | 0x4000000000000000ull) - 3.0; }

/// One step of SplitMix64 (Steele, Lea, Flood 2014): a bijection that scatters every bit.
constexpr std::uint64_t scatter(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

/// Eight independent xorshift128+ streams (Vigna 2014); only their upper 52 bits are used.
class LaneGenerator {
public:
  explicit LaneGenerator(std::uint64_t seed) {
    for (int lane = 0; lane < draws_per_batch; ++lane) {
      first_[lane] = scatter(seed + 2 * static_cast<std::uint64_t>(lane) + 1);
      second_[lane] = scatter(first_[lane] ^ seed) | 1u; // never all zero
    }
  }
  LaneBits bits() {
    LaneBits x = first_;
    const LaneBits y = second_;
    first_ = y;
    x ^= x << 23;
    second_ = x ^ y ^ (x >> 17) ^ (y >> 26);
    return second_ + y;
  }
  Lanes uniform() { return symmetric(bits()); }

private:
  LaneBits first_, second_;
};

} // namespace kdacheck
