#pragma once
// What the forms of the state's update (chunk_consumer.cuh, chunk_mixed.cuh, the sweeps of the backward pass) have in common: where a lane
// of a consumer warp finds its operands, and what it does with what is not finite. A warp holds S^T, P^T, R^T, U^T, O^T of 16 value columns
// as accumulators: lane l has columns l/4 and l/4 + 8, of every 8 channels or tokens 2 (l%4) and 2 (l%4) + 1.

#include "chunk_layout.cuh"

namespace kdacheck::cuda {

/// Rows that a lane addresses for a 16x16 operand, and which 8 of their numbers.
struct LanePlaces {
  unsigned row, segment;     ///< row-major operands, as they lie: matrices (rows 0-7 | 8-15) x (left | right 8 channels)
  unsigned row_t, segment_t; ///< transposed ones
};
__device__ __forceinline__ LanePlaces lane_places(unsigned lane) {
  return {lane % 8 + 8 * (lane / 16), (lane / 8) % 2, lane % 8 + 8 * ((lane / 8) % 2), lane / 16};
}

/// P = V - P; `v`: a tile of values, whose row is a token, loaded as its transpose, which has the layout of P.
template <bool half_precision> __device__ __forceinline__ void subtract_from_values(float (&P)[2][4], const std::uint32_t (&v)[4]) {
#pragma unroll
  for (int m = 0; m < 4; ++m) {
    const Pair value = half_precision ? unpack_fp16(v[m]) : unpack_bf16(v[m]);
    P[m / 2][2 * (m % 2)] = value.x - P[m / 2][2 * (m % 2)];
    P[m / 2][2 * (m % 2) + 1] = value.y - P[m / 2][2 * (m % 2) + 1];
  }
}

/// Two neighbouring tiles of S^T times the chunk's decays, [K] fp32 in shared memory. `own`: those of this lane's channels in tile 0.
template <int tiles> __device__ __forceinline__ void decay_tiles(float (&S)[tiles][4], Address own, int first) {
#pragma unroll
  for (int tile = first; tile < first + 2; ++tile) {
    const Pair decay = load_shared_pair(own + 32 * tile);
    S[tile][0] *= decay.x;
    S[tile][1] *= decay.y;
    S[tile][2] *= decay.x;
    S[tile][3] *= decay.y;
  }
}

/// S^T times the chunk's decays, [K] fp32 in shared memory.
template <int K> __device__ __forceinline__ void decay_state(float (&S)[K / 8][4], Address decays, unsigned lane) {
#pragma unroll
  for (int tile = 0; tile < K / 8; ++tile) {
    const Pair decay = load_shared_pair(decays + 4 * (8 * tile + 2 * (lane % 4)));
    S[tile][0] *= decay.x;
    S[tile][1] *= decay.y;
    S[tile][2] *= decay.x;
    S[tile][3] *= decay.y;
  }
}
/// The same where registers are not short: four tiles are read while those before are multiplied.
template <int K> __device__ __forceinline__ void decay_state_ahead(float (&S)[K / 8][4], Address decays, unsigned lane) {
  constexpr int at_once = 4;
  const Address own = decays + 8 * (lane % 4);
  Pair decay[2][at_once];
  const auto load = [&](int tile) {
#pragma unroll
    for (int m = 0; m < at_once; ++m) decay[tile / at_once % 2][m] = load_shared_pair(own + 32 * (tile + m));
  };
  load(0);
#pragma unroll
  for (int tile = 0; tile < K / 8; ++tile) {
    if (tile % at_once == 0 && tile + at_once < K / 8) load(tile + at_once);
    const Pair own_decay = decay[tile / at_once % 2][tile % at_once];
    S[tile][0] *= own_decay.x;
    S[tile][1] *= own_decay.y;
    S[tile][2] *= own_decay.x;
    S[tile][3] *= own_decay.y;
  }
}

/// Of the 16 tokens of column lane/4 + 8 half of a left operand, the first that is not finite; 16 if all are.
template <int pieces> __device__ __forceinline__ float first_not_finite(const Operand<pieces>& x, int half, unsigned lane) {
  float first = 16;
#pragma unroll
  for (int part = 1; part >= 0; --part) {
    const Pair pair = unpack_bf16(x.word[0][half + 2 * part]);
    const float token = static_cast<float>(8 * part + 2 * (lane % 4));
    if (!is_finite(pair.y)) first = token + 1;
    if (!is_finite(pair.x)) first = token;
  }
  first = fminf(first, shuffle_xor(first, 1));
  return fminf(first, shuffle_xor(first, 2));
}

/// Sets the tokens from `first` on of that column to 0.
template <int pieces> __device__ __forceinline__ void cut_tokens(Operand<pieces>& x, int half, float first, unsigned lane) {
#pragma unroll
  for (int part = 0; part < 2; ++part) {
    const float token = static_cast<float>(8 * part + 2 * (lane % 4));
    const std::uint32_t kept = token + 1 < first ? 0xffffffffu : token < first ? 0xffffu : 0u;
#pragma unroll
    for (int piece = 0; piece < pieces; ++piece) x.word[piece][half + 2 * part] &= kept;
  }
}

/// Rounds x, once the machine cuts it off at 11 bits, to one of the two nearest numbers of 11 bits, unbiased, within two thirds of their
/// distance; such numbers stay. (The conversion that rounds to the nearest takes three instructions, this one.)
__device__ __forceinline__ float before_cut(float x) { return x * (1 + 0x1p-10f / 3); }

/// Of the 16 tokens of column lane/4 + 8 half of R or U, the first that is not finite; 16 if all are.
__device__ __forceinline__ float first_not_finite(const float (&x)[2][4], int half, unsigned lane) {
  float first = 16;
#pragma unroll
  for (int part = 1; part >= 0; --part)
#pragma unroll
    for (int e = 1; e >= 0; --e)
      if (!is_finite(before_cut(x[part][2 * half + e]))) first = static_cast<float>(8 * part + 2 * (lane % 4) + e);
  first = fminf(first, shuffle_xor(first, 1));
  return fminf(first, shuffle_xor(first, 2));
}
/// Sets the tokens from `first` on of that column to 0.
__device__ __forceinline__ void cut_tokens(float (&x)[2][4], int half, float first, unsigned lane) {
#pragma unroll
  for (int part = 0; part < 2; ++part)
#pragma unroll
    for (int e = 0; e < 2; ++e)
      if (static_cast<float>(8 * part + 2 * (lane % 4) + e) >= first) x[part][2 * half + e] = 0;
}

/// Where U holds something that is not finite: products with the zeros above the diagonals of T and Aqk have then carried it, as
/// NaN, to tokens before its own. Forms u anew with what is not finite taken for 0, and makes O NaN from the first such token on.
/// `r`: residuals; `form(u, r)` makes U of them.
template <class Values, class Residuals, class Form>
__device__ __forceinline__ void keep_in_order(Values& u, float (&O)[2][4], Residuals& r, unsigned lane, Form form) {
  float first[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    first[half] = first_not_finite(r, half, lane);
    cut_tokens(r, half, first[half], lane);
  }
  form(u, r);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    first[half] = fminf(first[half], first_not_finite(u, half, lane));
    cut_tokens(u, half, first[half], lane);
#pragma unroll
    for (int e = 0; e < 4; ++e)
      if (static_cast<float>(8 * (e / 2) + 2 * (lane % 4) + e % 2) >= first[half]) O[e / 2][2 * half + e % 2] = bits_as_float(0x7fffffffu);
  }
}

} // namespace kdacheck::cuda
