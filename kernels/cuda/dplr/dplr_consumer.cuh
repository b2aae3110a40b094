#pragma once
// The serial half of the general rule's chunk kernel: one warp carries 16 value columns of the state, as in chunk_consumer.cuh. With
// w = -S^T b as the recurrence reads it, transposed:
//   R^T = S^T bd^T + V^T M^T    W^T = R^T (-T)^T    O^T = S^T qd^T + V^T Aqk^T + W^T Aqa^T    S^T = S^T e^{G_C} + V^T kr + W^T ar

#include "../chunk/chunk_consumer.cuh"
#include "dplr_layout.cuh"

namespace kdacheck::cuda {

/// Where W holds something that is not finite: products with the zeros above the diagonals have then carried it, as NaN, to tokens
/// before its own. Forms v and w anew with what is not finite taken for 0, and makes O NaN from the first such token on.
/// `P`: what the state gives to R.
__device__ __forceinline__ void keep_general_order(Operand<1>& v, Operand<1>& w, float (&O)[2][4], const float (&P)[2][4],
                                                   const Operand<1>& M, const Operand<1>& triangle, unsigned lane) {
  float first[2], R[2][4] = {}, W[2][4] = {};
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    first[half] = first_not_finite(v, half, lane);
    cut_tokens(v, half, first[half], lane);
  }
  multiply_add(R[0], v, M, 0);
  multiply_add(R[1], v, M, 1);
#pragma unroll
  for (int e = 0; e < 8; ++e) R[e / 4][e % 4] += P[e / 4][e % 4];
  Operand<1> r = as_operand<1>(R[0], R[1]);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float in_r = first_not_finite(r, half, lane);
    cut_tokens(r, half, in_r, lane);
    first[half] = fminf(first[half], in_r);
  }
  multiply_add(W[0], r, triangle, 0);
  multiply_add(W[1], r, triangle, 1);
  w = as_operand<1>(W[0], W[1]);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float in_w = first_not_finite(w, half, lane);
    cut_tokens(w, half, in_w, lane);
    first[half] = fminf(first[half], in_w);
#pragma unroll
    for (int e = 0; e < 4; ++e)
      if (static_cast<float>(8 * (e / 2) + 2 * (lane % 4) + e % 2) >= first[half]) O[e / 2][2 * half + e % 2] = bits_as_float(0x7fffffffu);
  }
}

/// One chunk: outputs of 16 tokens in O, the state one chunk later. Outputs are complete before the state moves, so that what they need
/// gives its registers to operands of the state on their way.
template <int K, bool half_precision>
__device__ __forceinline__ void advance_general(float (&S)[K / 8][4], float (&O)[2][4], Address stage, Address values, unsigned lane) {
  using Stage = GeneralStage<K>;
  const unsigned row = lane % 8 + 8 * (lane / 16), segment = (lane / 8) % 2;     // row-major operands, as they lie
  const unsigned row_t = lane % 8 + 8 * ((lane / 8) % 2), segment_t = lane / 16; // transposed ones
  const Address tiles = stage + tile_offset(row, segment);
  // 16 channels from 16 step on: within 128 bytes segments are exchanged, which is the same for every 64 channels.
  const auto place = [&](unsigned first_row, unsigned first_segment, int step) {
    return stage + 128 * (step / 4) + (swizzled(first_row, 8 * first_segment, 2 * K) ^ (32 * (step % 4)));
  };
  Operand<1> v, M, triangle, Aqk, Aqa;
  load_matrices_transposed(v.word[0], values + tile_offset(row, segment)); // row = token
  if constexpr (half_precision) {
#pragma unroll
    for (std::uint32_t& word : v.word[0]) {
      const Pair value = unpack_fp16(word);
      word = pack_bf16(value.x, value.y);
    }
  }
  load_matrices(M.word[0], tiles + Stage::M);
  float P[2][4] = {}, R[2][4] = {};
#pragma unroll
  for (int e = 0; e < 8; ++e) O[e / 4][e % 4] = 0;
  multiply_add(R[0], v, M, 0);
  multiply_add(R[1], v, M, 1);
#pragma unroll
  for (int step = 0; step < K / 16; ++step) {
    const Operand<1> s = as_operand<1>(S[2 * step], S[2 * step + 1]);
    Operand<1> bd, qd;
    load_matrices(bd.word[0], place(row, segment, step) + Stage::bd);
    load_matrices(qd.word[0], place(row, segment, step) + Stage::qd);
    multiply_add(P[0], s, bd, 0);
    multiply_add(P[1], s, bd, 1);
    multiply_add(O[0], s, qd, 0);
    multiply_add(O[1], s, qd, 1);
  }
  load_matrices(triangle.word[0], tiles + Stage::T);
  load_matrices(Aqk.word[0], tiles + Stage::Aqk);
  load_matrices(Aqa.word[0], tiles + Stage::Aqa);
  decay_state_ahead<K>(S, stage + Stage::decay, lane);
#pragma unroll
  for (int e = 0; e < 8; ++e) R[e / 4][e % 4] += P[e / 4][e % 4];
  const Operand<1> r = as_operand<1>(R[0], R[1]);
  float W[2][4] = {};
  multiply_add(W[0], r, triangle, 0);
  multiply_add(W[1], r, triangle, 1);
  // Operands of the state, two steps ahead of their products.
  Operand<1> kr[K / 16], ar[K / 16];
  const auto load = [&](int step) {
    load_matrices_transposed(kr[step].word[0], place(row_t, segment_t, step) + Stage::kr);
    load_matrices_transposed(ar[step].word[0], place(row_t, segment_t, step) + Stage::ar);
  };
  load(0);
  load(1);
  const Operand<1> w = as_operand<1>(W[0], W[1]);
  const bool finite = is_finite(((W[0][0] + W[0][1]) + (W[0][2] + W[0][3])) + ((W[1][0] + W[1][1]) + (W[1][2] + W[1][3])));
  Operand<1> shown_v = v, shown_w = w;
  if (any_lane(!finite)) [[unlikely]] // a sum of finite numbers that overflows does no harm here
    keep_general_order(shown_v, shown_w, O, P, M, triangle, lane);
  multiply_add(O[0], shown_v, Aqk, 0);
  multiply_add(O[1], shown_v, Aqk, 1);
  multiply_add(O[0], shown_w, Aqa, 0);
  multiply_add(O[1], shown_w, Aqa, 1);
#pragma unroll
  for (int step = 0; step < K / 16; ++step) {
    if (step + 2 < K / 16) load(step + 2);
    multiply_add(S[2 * step], v, kr[step], 0);
    multiply_add(S[2 * step + 1], v, kr[step], 1);
    multiply_add(S[2 * step], w, ar[step], 0);
    multiply_add(S[2 * step + 1], w, ar[step], 1);
  }
}

} // namespace kdacheck::cuda
