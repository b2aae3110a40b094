#pragma once
// The decay of a token from its logarithm, for kernels whose fp32 states live for thousands of tokens.
//
// The machine's own exponential, within 2 units like this one, errs to one side over whole intervals: by 0.2 units of 2^-24 on
// average for the decays of slow gates. Over 2,000 tokens of a state that is hardly ever overwritten that made an error 1.8 times
// what independent errors of 2 units may add up to. Here the last operation is one addition to 1, rounded to nearest.

#include "warp.cuh"

namespace kdacheck::cuda {

/// e^x, x <= 0, within 2 units in the last place; exactly 1 at 0; NaN for NaN. Below -104 it is 0; above 40 (outside the use) finite.
__device__ __forceinline__ float decay_exponential(float x) {
  constexpr float log2_e = 0x1.715476p+0f, ln2_high = 0x1.62e4p-1f, ln2_low = 0x1.7f7d1cp-20f;
  constexpr float shift = 0x1.8p23f; // adding it leaves the nearest integer in the low bits
  x = x < -104.0f ? -104.0f : x;
  x = x > 40.0f ? 40.0f : x;
  const float shifted = fmaf(x, log2_e, shift), n = shifted - shift;
  const float r = fmaf(n, -ln2_low, fmaf(n, -ln2_high, x));
  // Taylor polynomial of degree 7: |r| <= ln 2 / 2 leaves 0.35^8 / 8! < 2^-27.
  float p = 1.0f / 5040;
  p = fmaf(p, r, 1.0f / 720);
  p = fmaf(p, r, 1.0f / 120);
  p = fmaf(p, r, 1.0f / 24);
  p = fmaf(p, r, 1.0f / 6);
  p = fmaf(p, r, 0.5f);
  p = fmaf(p, r, 1.0f);
  p = fmaf(p, r, 1.0f);
  // 2^n through 2^(n + 64): the product is a normal number, so that the last step rounds a subnormal result once.
  const std::uint32_t power = static_cast<std::uint32_t>(static_cast<int>(n) + (127 + 64)) << 23;
  return p * bits_as_float(power) * 0x1p-64f;
}

} // namespace kdacheck::cuda
