#pragma once
// The serial half of the general rule's chunk kernel: one warp carries 16 value columns of the state, as in chunk_consumer.cuh. With
// w = -S^T b as the recurrence reads it, transposed:
//   R^T = S^T bd^T + V^T M^T    W^T = R^T (-T)^T    O^T = S^T qd^T + V^T Aqk^T + W^T Aqa^T    S^T = S^T e^{G_C} + V^T kr + W^T ar

#include "chunk_consumer.cuh"
#include "dplr_layout.cuh"

namespace kdacheck::cuda {

__device__ __forceinline__ bool is_number(float x) { return fabsf(x) <= 3.402823466e38f; }

/// Of the 16 tokens of column lane/4 + 8 half of a left operand, the first that is not finite (16: all are); it and all after it are
/// set to 0.
__device__ __forceinline__ float cut_at_first_not_finite(Operand<1>& x, int half, unsigned lane) {
  float first = 16;
#pragma unroll
  for (int part = 1; part >= 0; --part) {
    const Pair pair = unpack_bf16(x.word[0][half + 2 * part]);
    const float token = static_cast<float>(8 * part + 2 * (lane % 4));
    if (!is_number(pair.y)) first = token + 1;
    if (!is_number(pair.x)) first = token;
  }
  first = fminf(first, shuffle_xor(first, 1));
  first = fminf(first, shuffle_xor(first, 2));
#pragma unroll
  for (int part = 0; part < 2; ++part) {
    const float token = static_cast<float>(8 * part + 2 * (lane % 4));
    x.word[0][half + 2 * part] &= token + 1 < first ? 0xffffffffu : token < first ? 0xffffu : 0u;
  }
  return first;
}

/// Where W holds something that is not finite: products with the zeros above the diagonals have then carried it, as NaN, to tokens
/// before its own. Forms v and w anew with what is not finite taken for 0, and makes O NaN from the first such token on.
/// `P`: what the state gives to R.
__device__ __forceinline__ void keep_general_order(Operand<1>& v, Operand<1>& w, float (&O)[2][4], const float (&P)[2][4],
                                                   const Operand<1>& M, const Operand<1>& triangle, unsigned lane) {
  float first[2], R[2][4] = {}, W[2][4] = {};
#pragma unroll
  for (int half = 0; half < 2; ++half) first[half] = cut_at_first_not_finite(v, half, lane);
  multiply_add(R[0], v, M, 0);
  multiply_add(R[1], v, M, 1);
#pragma unroll
  for (int e = 0; e < 8; ++e) R[e / 4][e % 4] += P[e / 4][e % 4];
  Operand<1> r = as_operand<1>(R[0], R[1]);
#pragma unroll
  for (int half = 0; half < 2; ++half) first[half] = fminf(first[half], cut_at_first_not_finite(r, half, lane));
  multiply_add(W[0], r, triangle, 0);
  multiply_add(W[1], r, triangle, 1);
  w = as_operand<1>(W[0], W[1]);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    first[half] = fminf(first[half], cut_at_first_not_finite(w, half, lane));
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
#pragma unroll
  for (int tile = 0; tile < K / 8; ++tile) {
    const Pair decay = load_shared_pair(stage + Stage::decay + 4 * (8 * tile + 2 * (lane % 4)));
    S[tile][0] *= decay.x;
    S[tile][1] *= decay.y;
    S[tile][2] *= decay.x;
    S[tile][3] *= decay.y;
  }
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
  const bool finite = is_number(((W[0][0] + W[0][1]) + (W[0][2] + W[0][3])) + ((W[1][0] + W[1][1]) + (W[1][2] + W[1][3])));
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

/// All chunks of a sequence for value columns [column, column + 16).
template <int K, bool half_precision>
__device__ void consume_general(const ForwardArguments& args, const Ring& ring, Address area, Span span, std::int64_t n, int head,
                                int column, unsigned lane) {
  float S[K / 8][4];
  load_state<K>(S, args.initial_state, args, n * args.HV + head, column, lane);
  const int chunks = static_cast<int>((span.length + chunk_tokens - 1) / chunk_tokens);
  // Each lane copies 16 bytes of a tile: half a row of one token.
  const unsigned token = lane / 2, half = lane % 2;
  const auto* v = static_cast<const std::uint16_t*>(args.v.data) + row_of(args.v, span.batch, span.first, head) + column + 8 * half;
  auto* o = static_cast<std::uint16_t*>(args.o.data) + row_of(args.o, span.batch, span.first, head) + column + 8 * half;
  const auto fetch = [&](int chunk) {
    if (chunk < chunks) {
      const std::int64_t t = static_cast<std::int64_t>(chunk) * chunk_tokens + token;
      const bool inside = t < span.length;
      copy_async(area + (chunk % value_ring) * tile_bytes + tile_offset(token, half), v + (inside ? t * args.v.token : 0), inside ? 16 : 0);
    }
    copy_async_commit();
  };
  for (int chunk = 0; chunk < value_ring - 1; ++chunk) fetch(chunk);
  const Address output = area + value_ring * tile_bytes;
  int stage = 0;
  unsigned parity = 0, owner = 0; // owner = stage % sharing
  for (int chunk = 0; chunk < chunks; ++chunk) {
    copy_async_wait<value_ring - 2>();
    barrier_wait(ring.full(stage), parity);
    sync_warp(); // the tile of this chunk is there for all lanes, and all lanes are done with the one that is overwritten next
    fetch(chunk + value_ring - 1);
    float O[2][4];
    advance_general<K, half_precision>(S, O, ring.stages + stage * GeneralStage<K>::bytes, area + (chunk % value_ring) * tile_bytes, lane);
    sync_warp();
    if (lane == 0) ring.give_back(stage, owner);
    std::uint32_t words[4];
#pragma unroll
    for (int m = 0; m < 4; ++m) {
      const float x = O[m / 2][2 * (m % 2)], y = O[m / 2][2 * (m % 2) + 1];
      words[m] = half_precision ? pack_fp16(x, y) : pack_bf16(x, y);
    }
    store_matrices_transposed(output + tile_offset(lane % 8 + 8 * (lane / 16), (lane / 8) % 2), words);
    sync_warp();
    load_shared_quad(words, output + tile_offset(token, half));
    const std::int64_t t = static_cast<std::int64_t>(chunk) * chunk_tokens + token;
    if (t < span.length) store_global_at_once(o + t * args.o.token, words);
    if (++owner == ring.sharing) owner = 0;
    if (++stage == ring.count) {
      stage = 0;
      parity ^= 1;
    }
  }
  copy_async_wait<0>();
  store_state<K>(S, args.final_state, args, n * args.HV + head, column, lane);
}

} // namespace kdacheck::cuda
