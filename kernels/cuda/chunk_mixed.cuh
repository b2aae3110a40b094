#pragma once
// One chunk of the state where operands are mixed (mixed_terms): S, R and U enter products as tf32, straight from the registers that hold
// them, kd, qd, T and Aqk are read as fp16 and widened, and S takes U kr as three products of bf16 terms, because what kr lacks
// piles up in a state that is not overwritten.
//
// A product of 8 inner elements wants element l%4 of its left operand in lane l, where a sum keeps elements 2 (l%4) and 2 (l%4) + 1.
// Both operands are taken in the order 0 2 4 6 1 3 5 7, in which a sum is a left operand as it lies and a word of two
// fp16 numbers is the two of a right one.

#include "chunk_layout.cuh"

namespace kdacheck::cuda {

/// Rounds x, once the machine cuts it off at 11 bits, to one of the two nearest numbers of 11 bits, unbiased, within two thirds of their
/// distance; such numbers stay. (The conversion that rounds to the nearest takes three instructions, this one.)
__device__ __forceinline__ float before_cut(float x) { return x * (1 + 0x1p-10f / 3); }

/// A sum [16,8] as a left operand, rounded.
__device__ __forceinline__ void as_tf32(float (&a)[4], const float (&sum)[4]) {
  a[0] = before_cut(sum[0]), a[1] = before_cut(sum[2]), a[2] = before_cut(sum[1]), a[3] = before_cut(sum[3]);
}
/// c += a b, b two fp16 numbers a lane.
__device__ __forceinline__ void multiply_add_widened(float (&c)[4], const float (&a)[4], std::uint32_t b) {
  const Pair wide = unpack_fp16(b);
  multiply_add_tf32(c, a, wide.x, wide.y);
}

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

/// c += x b over 16 tokens, for both halves of b's tokens; x rounded before.
__device__ __forceinline__ void multiply_tokens(float (&c)[2][4], const float (&x)[2][4], const std::uint32_t (&b)[4]) {
#pragma unroll
  for (int part = 0; part < 2; ++part) {
    float a[4];
    as_tf32(a, x[part]);
    multiply_add_widened(c[0], a, b[part]);
    multiply_add_widened(c[1], a, b[2 + part]);
  }
}

/// As keep_in_order of chunk_consumer.cuh: U anew with what is not finite taken for 0, O NaN from the first such token on.
__device__ __forceinline__ void keep_mixed_order(float (&U)[2][4], float (&O)[2][4], float (&R)[2][4], const std::uint32_t (&triangle)[4],
                                                 unsigned lane) {
  float first[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    first[half] = first_not_finite(R, half, lane);
    cut_tokens(R, half, first[half], lane);
  }
#pragma unroll
  for (int e = 0; e < 8; ++e) U[e / 4][e % 4] = 0;
  multiply_tokens(U, R, triangle);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    first[half] = fminf(first[half], first_not_finite(U, half, lane));
    cut_tokens(U, half, first[half], lane);
#pragma unroll
    for (int e = 0; e < 4; ++e)
      if (static_cast<float>(8 * (e / 2) + 2 * (lane % 4) + e % 2) >= first[half]) O[e / 2][2 * half + e % 2] = bits_as_float(0x7fffffffu);
  }
}

/// One chunk: outputs of 16 tokens in O, the state one chunk later. Products that follow one another belong to different sums.
template <int K, bool half_precision>
__device__ __forceinline__ void advance_mixed(float (&S)[K / 8][4], float (&O)[2][4], Address stage, Address values, unsigned lane) {
  using Layout = StageLayout<K, mixed_terms>;
  const unsigned row = lane % 8 + 8 * (lane / 16), segment = (lane / 8) % 2;     // row-major operands, as they lie
  const unsigned row_t = lane % 8 + 8 * ((lane / 8) % 2), segment_t = lane / 16; // transposed ones
  float P[2][4] = {};
#pragma unroll
  for (int e = 0; e < 8; ++e) O[e / 4][e % 4] = 0;
#pragma unroll
  for (int step = 0; step < K / 16; ++step) {
    const unsigned offset = swizzled(row, 16 * step + 8 * segment, K * 2);
    std::uint32_t kd[4], qd[4];
    load_matrices(kd, stage + Layout::kd + offset);
    load_matrices(qd, stage + Layout::qd + offset);
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      float s[4];
      as_tf32(s, S[2 * step + part]);
      multiply_add_widened(P[0], s, kd[part]);
      multiply_add_widened(P[1], s, kd[2 + part]);
      multiply_add_widened(O[0], s, qd[part]);
      multiply_add_widened(O[1], s, qd[2 + part]);
    }
  }
  std::uint32_t v[4], triangle[4], Aqk[4]; // value tile: row = token, so its transpose has the layout of P
  load_matrices_transposed(v, values + tile_offset(lane % 8 + 8 * (lane / 16), (lane / 8) % 2));
  load_matrices(triangle, stage + Layout::T + tile_offset(row, segment));
  load_matrices(Aqk, stage + Layout::Aqk + tile_offset(row, segment));
#pragma unroll
  for (int m = 0; m < 4; ++m) {
    const Pair value = half_precision ? unpack_fp16(v[m]) : unpack_bf16(v[m]);
    P[m / 2][2 * (m % 2)] = value.x - P[m / 2][2 * (m % 2)];
    P[m / 2][2 * (m % 2) + 1] = value.y - P[m / 2][2 * (m % 2) + 1];
  }
  float U[2][4] = {};
  multiply_tokens(U, P, triangle);
  const bool finite = is_finite(((U[0][0] + U[0][1]) + (U[0][2] + U[0][3])) + ((U[1][0] + U[1][1]) + (U[1][2] + U[1][3])));
#pragma unroll
  for (int tile = 0; tile < K / 8; ++tile) {
    const Pair decay = load_shared_pair(stage + Layout::decay + 4 * (8 * tile + 2 * (lane % 4)));
    S[tile][0] *= decay.x;
    S[tile][1] *= decay.y;
    S[tile][2] *= decay.x;
    S[tile][3] *= decay.y;
  }
  const Operand<2> u = as_operand<2>(U[0], U[1]);
#pragma unroll
  for (int step = 0; step < K / 16; step += 2) {
    std::uint32_t kr[2][2][4]; // [step][term]
#pragma unroll
    for (int next = 0; next < 2; ++next)
#pragma unroll
      for (int term = 0; term < 2; ++term)
        load_matrices_transposed(kr[next][term],
                                 stage + Layout::kr + term * Layout::piece + swizzled(row_t, 16 * (step + next) + 8 * segment_t, K * 2));
    const auto add = [&](int of_u, int of_kr) {
#pragma unroll
      for (int tile = 0; tile < 4; ++tile)
        multiply_add(S[2 * step + tile], u.word[of_u], kr[tile / 2][of_kr][2 * (tile % 2)], kr[tile / 2][of_kr][2 * (tile % 2) + 1]);
    };
    add(1, 0);
    add(0, 1);
    add(0, 0);
  }
  if (any_lane(!finite)) [[unlikely]] // a sum of finite numbers that overflows does no harm here
    keep_mixed_order(U, O, P, triangle, lane);
  multiply_tokens(O, U, Aqk);
}

} // namespace kdacheck::cuda
