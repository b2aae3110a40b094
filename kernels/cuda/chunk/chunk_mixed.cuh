#pragma once
// One chunk of the state where operands are mixed (mixed_terms): S, R and U enter products as tf32, straight from the registers that hold
// them, kd, qd, T and Aqk are read as fp16 and widened, and S takes U kr as three products of bf16 terms, because what kr lacks
// piles up in a state that is not overwritten.
//
// A product of 8 inner elements wants element l%4 of its left operand in lane l, where a sum keeps elements 2 (l%4) and 2 (l%4) + 1.
// Both operands are taken in the order 0 2 4 6 1 3 5 7, in which a sum is a left operand as it lies and a word of two
// fp16 numbers is the two of a right one.

#include "chunk_lanes.cuh"

namespace kdacheck::cuda {

/// A sum [16,8] as a left operand, rounded.
__device__ __forceinline__ void as_tf32(float (&a)[4], const float (&sum)[4]) {
  a[0] = before_cut(sum[0]), a[1] = before_cut(sum[2]), a[2] = before_cut(sum[1]), a[3] = before_cut(sum[3]);
}
/// c += a b, b two fp16 numbers a lane.
__device__ __forceinline__ void multiply_add_widened(float (&c)[4], const float (&a)[4], std::uint32_t b) {
  const Pair wide = unpack_fp16(b);
  multiply_add_tf32(c, a, wide.x, wide.y);
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

/// One chunk: outputs of 16 tokens in O, the state one chunk later. Products that follow one another belong to different sums.
template <int K, bool half_precision>
__device__ __forceinline__ void advance_mixed(float (&S)[K / 8][4], float (&O)[2][4], Address stage, Address values, unsigned lane) {
  using Layout = StageLayout<K, mixed_terms>;
  const auto [row, segment, row_t, segment_t] = lane_places(lane);
  const Address decays = stage + Layout::decay + 8 * (lane % 4);
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
    decay_tiles(S, decays, 2 * step); // here, where products leave room
  }
  std::uint32_t v[4], triangle[4], Aqk[4];
  load_matrices_transposed(v, values + tile_offset(lane % 8 + 8 * (lane / 16), (lane / 8) % 2));
  load_matrices(triangle, stage + Layout::T + tile_offset(row, segment));
  load_matrices(Aqk, stage + Layout::Aqk + tile_offset(row, segment));
  subtract_from_values<half_precision>(P, v);
  float U[2][4] = {};
  multiply_tokens(U, P, triangle);
  const bool finite = is_finite(((U[0][0] + U[0][1]) + (U[0][2] + U[0][3])) + ((U[1][0] + U[1][1]) + (U[1][2] + U[1][3])));
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
    keep_in_order(U, O, P, lane, [&](float(&updates)[2][4], const float(&residuals)[2][4]) {
#pragma unroll
      for (int e = 0; e < 8; ++e) updates[e / 4][e % 4] = 0;
      multiply_tokens(updates, residuals, triangle);
    });
  multiply_tokens(O, U, Aqk);
}

} // namespace kdacheck::cuda
