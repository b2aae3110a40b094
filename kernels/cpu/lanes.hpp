#pragma once
// As many fp32 numbers side by side as a register of the machine holds, sixteen or eight: the unit in which the CPU kernels work.
// (Sixteen without AVX-512 live in memory, and the compiler takes their multiply-adds apart into single ones: nine times slower.)
// Rows are padded with zeros to a multiple of sixteen, so that loops have no remainder and an element's arithmetic does not depend
// on where it stands.

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#ifdef __AVX__
#include <immintrin.h>
#endif

namespace kdacheck::cpu {

#ifdef __AVX512F__
inline constexpr std::int64_t lane_count = 16;
#else
inline constexpr std::int64_t lane_count = 8;
#endif
using Lanes = float __attribute__((vector_size(lane_count * sizeof(float))));
using IntLanes = std::int32_t __attribute__((vector_size(lane_count * sizeof(float))));

/// The least multiple of sixteen that holds `size`.
constexpr std::int64_t padded(std::int64_t size) { return (size + 15) / 16 * 16; }

inline Lanes load(const float* from) {
  Lanes lanes;
  std::memcpy(&lanes, from, sizeof lanes);
  return lanes;
}

inline void store(float* to, Lanes lanes) { std::memcpy(to, &lanes, sizeof lanes); }

/// Not `Lanes{} + x`: that is an addition, for the sake of -0, and keeps the multiply-add from taking its factor from memory.
inline Lanes broadcast(float x) {
#if defined(__AVX512F__)
  return _mm512_set1_ps(x);
#elif defined(__AVX__)
  return _mm256_set1_ps(x);
#else
  return Lanes{} + x;
#endif
}

/// x y + z with one rounding where the machine has it; contraction is asked for here and nowhere else.
inline float multiply_add(float x, float y, float z) {
#ifdef __FMA__
  return std::fma(x, y, z);
#else
  return x * y + z;
#endif
}

inline Lanes multiply_add(Lanes x, Lanes y, Lanes z) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(x, y, z);
#elif defined(__AVX__) && defined(__FMA__)
  return _mm256_fmadd_ps(x, y, z);
#else
  Lanes result;
  for (int lane = 0; lane < lane_count; ++lane) result[lane] = multiply_add(x[lane], y[lane], z[lane]);
  return result;
#endif
}

/// The larger of a number and each lane, the smaller; a NaN stays. (The compiler makes two instructions of a choice.)
inline Lanes at_least(Lanes x, float least) {
#if defined(__AVX512F__)
  return _mm512_max_ps(broadcast(least), x);
#elif defined(__AVX__)
  return _mm256_max_ps(broadcast(least), x);
#else
  return x < broadcast(least) ? broadcast(least) : x;
#endif
}
inline Lanes at_most(Lanes x, float most) {
#if defined(__AVX512F__)
  return _mm512_min_ps(broadcast(most), x);
#elif defined(__AVX__)
  return _mm256_min_ps(broadcast(most), x);
#else
  return x > broadcast(most) ? broadcast(most) : x;
#endif
}

/// Sum over the lanes, always in the same order.
inline float sum(Lanes x) {
  float part[lane_count];
  store(part, x);
  for (int half = lane_count / 2; half > 0; half /= 2)
    for (int lane = 0; lane < half; ++lane) part[lane] += part[lane + half];
  return part[0];
}

/// Inner product of two padded rows, always in the same order.
inline float dot(const float* x, const float* y, std::int64_t size) {
  Lanes lanes{};
  for (std::int64_t at = 0; at < size; at += lane_count) lanes = multiply_add(load(x + at), load(y + at), lanes);
  return sum(lanes);
}

/// e^x for x <= 0, within 2 units in the last place of fp32, subnormal results included; exactly 1 at 0, NaN for NaN.
/// Below -104 it is 0, as rounding to fp32 makes it.
inline Lanes exp_below_one(Lanes x) {
  constexpr float log2_e = 0x1.715476p+0f, ln2_high = 0x1.62e4p-1f, ln2_low = 0x1.7f7d1cp-20f;
  constexpr float shift = 0x1.8p23f; // adding it leaves the nearest integer in the low bits
  x = at_least(x, -104.0f);
  const Lanes shifted = multiply_add(x, broadcast(log2_e), broadcast(shift));
  const Lanes n = shifted - broadcast(shift);
  Lanes r = multiply_add(n, broadcast(-ln2_high), x);
  r = multiply_add(n, broadcast(-ln2_low), r);
  // 1 + r + r^2 (...): the polynomial of degree 6 that errs least in relation to e^r on |r| <= ln 2 / 2, by 2^-27.9 with the
  // coefficients rounded (Remez).
  Lanes p = broadcast(0x1.6a2256p-10f);
  for (float coefficient : {0x1.123b02p-7f, 0x1.5558f8p-5f, 0x1.55549p-3f, 0x1.fffffcp-2f, 1.0f, 1.0f})
    p = multiply_add(p, r, broadcast(coefficient));
#ifdef __AVX512F__
  return _mm512_scalef_ps(p, n); // the same bits in one step
#else
  // 2^n through 2^(n + 64): the product is a normal number, so that the last step rounds a subnormal result once.
  const IntLanes power = (std::bit_cast<IntLanes>(shifted) - std::bit_cast<std::int32_t>(shift) + (127 + 64)) << 23;
  return p * std::bit_cast<Lanes>(power) * broadcast(0x1p-64f);
#endif
}

/// The same; above 40 (outside the use) it stays finite.
inline Lanes exp_of(Lanes x) { return exp_below_one(at_most(x, 40.0f)); }

} // namespace kdacheck::cpu
