#pragma once
// Second pass of the backward pass: the cotangent dS of the state, from the last chunk to the first. The forward pass's
// mirror: transposed, 16 value columns a warp, dS^T [16 columns, K] fp32 in its accumulators.
//   dU^T = dS'^T kr^T + dO^T Aqk      M^T = dU^T (I + diag(beta) Akk)^{-1}      dV = beta M
//   dS^T = dS'^T e^{G_C} + dO^T qd - dV^T kd
// M is stored for every token and dS at the boundaries of segments.

#include "../chunk/chunk_producer.cuh"
#include "backward_stores.cuh"
#include "backward_supply.cuh"

#include <cmath>

namespace kdacheck::cuda {

/// A tile of dO^T as left operand: what is stored as bf16 is one term already.
template <int pieces, bool half_precision> __device__ __forceinline__ Operand<pieces> cotangent_operand(const std::uint32_t (&words)[4]) {
  Operand<pieces> operand;
#pragma unroll
  for (int m = 0; m < 4; ++m) {
    if constexpr (half_precision) {
      const Pair x = unpack_fp16(words[m]);
      const Terms<pieces> terms = split<pieces>(x.x, x.y);
#pragma unroll
      for (int piece = 0; piece < pieces; ++piece) operand.word[piece][m] = terms.word[piece];
    } else {
      operand.word[0][m] = words[m];
      if constexpr (pieces == 2) operand.word[1][m] = 0;
    }
  }
  return operand;
}

/// Whether a warp's tile of 16-bit numbers holds none that is infinite or NaN.
template <bool half_precision> __device__ __forceinline__ bool all_finite(const std::uint32_t (&words)[4]) {
  constexpr std::uint32_t exponents = half_precision ? 0x7c007c00u : 0x7f807f80u, least = half_precision ? 0x04000400u : 0x00800080u;
  std::uint32_t full = 0; // sign bits tell which numbers have an exponent of ones only
#pragma unroll
  for (int m = 0; m < 4; ++m) full |= (words[m] & exponents) + least;
  return !any_lane((full & 0x80008000u) != 0);
}

/// A cotangent that is not finite reaches its own token and earlier ones, but products with a triangle's zeros would carry it to
/// later ones too. Takes it out of `words`, and gives the last token of the chunk, -1 if none, whose row l/4, or l/4 + 8, holds one.
template <bool half_precision>
__device__ __forceinline__ void take_out_not_finite(std::uint32_t (&words)[4], int (&last)[2], unsigned lane) {
  constexpr std::uint32_t exponent = half_precision ? 0x7c00u : 0x7f80u;
  last[0] = last[1] = -1;
#pragma unroll
  for (int m = 0; m < 4; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half)
      if ((words[m] >> (16 * half) & exponent) == exponent) {
        words[m] &= half == 0 ? 0xffff0000u : 0x0000ffffu;
        last[m % 2] = 8 * (m / 2) + 2 * static_cast<int>(lane % 4) + half;
      }
#pragma unroll
  for (int row = 0; row < 2; ++row)
#pragma unroll
    for (int mask = 1; mask < 4; mask *= 2) {
      const int other = static_cast<int>(shuffle_xor(static_cast<float>(last[row]), mask));
      last[row] = other > last[row] ? other : last[row];
    }
}

/// One chunk back: M^T and dV^T of 16 tokens, dS one chunk earlier.
template <int K, int pieces, bool half_precision, class Layout>
__device__ __forceinline__ void retreat_adjoint(float (&dS)[K / 8][4], float (&M)[2][4], float (&dV)[2][4], Address stage,
                                                Address cotangents, unsigned lane) {
  const auto [row, segment, row_t, segment_t] = lane_places(lane);
  float dU[2][4] = {};
#pragma unroll
  for (int step = 0; step < K / 16; ++step) {
    const Operand<pieces> s = as_operand<pieces>(dS[2 * step], dS[2 * step + 1]);
    Operand<pieces> kr;
    load_operand(kr, stage + Layout::kr + swizzled(row, 16 * step + 8 * segment, K * 2), Layout::piece);
    multiply_add(dU[0], s, kr, 0);
    multiply_add(dU[1], s, kr, 1);
  }
  std::uint32_t words[4];
  load_tile_transposed(words, cotangents, lane);
  const bool finite = all_finite<half_precision>(words);
  int last[2] = {-1, -1};
  if (!finite) take_out_not_finite<half_precision>(words, last, lane);
  Operand<pieces> Aqk, triangle;
  load_operand_transposed(Aqk, stage + Layout::Aqk + tile_offset(row_t, segment_t), tile_bytes);
  {
    const Operand<pieces> within_chunk = cotangent_operand<pieces, half_precision>(words);
    multiply_add(dU[0], within_chunk, Aqk, 0);
    multiply_add(dU[1], within_chunk, Aqk, 1);
  }
  load_operand_transposed(triangle, stage + Layout::T + tile_offset(row_t, segment_t), tile_bytes);
  const Operand<pieces> u = as_operand<pieces>(dU[0], dU[1]);
#pragma unroll
  for (int e = 0; e < 8; ++e) M[e / 4][e % 4] = 0;
  multiply_add(M[0], u, triangle, 0);
  multiply_add(M[1], u, triangle, 1);
  if (!finite) {
#pragma unroll
    for (int e = 0; e < 8; ++e)
      if (8 * (e / 4) + 2 * static_cast<int>(lane % 4) + e % 2 <= last[e % 4 / 2]) M[e / 4][e % 4] = NAN;
  }
  float negative[2][4];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const Pair beta = load_shared_pair(stage + Layout::betas + 4 * (8 * half + 2 * (lane % 4)));
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      dV[half][e] = M[half][e] * (e % 2 == 0 ? beta.x : beta.y);
      negative[half][e] = -dV[half][e];
    }
  }
  decay_state<K>(dS, stage + Layout::decay, lane);
  if (!finite) load_tile_transposed(words, cotangents, lane);
  const Operand<pieces> d_o = cotangent_operand<pieces, half_precision>(words);
  const Operand<pieces> erased = as_operand<pieces>(negative[0], negative[1]);
#pragma unroll
  for (int step = 0; step < K / 16; ++step) {
    const unsigned offset = swizzled(row_t, 16 * step + 8 * segment_t, K * 2);
    Operand<pieces> qd, kd;
    load_operand_transposed(qd, stage + Layout::qd + offset, Layout::piece);
    load_operand_transposed(kd, stage + Layout::kd + offset, Layout::piece);
    multiply_add(dS[2 * step], d_o, qd, 0);
    multiply_add(dS[2 * step + 1], d_o, qd, 1);
    multiply_add(dS[2 * step], erased, kd, 0);
    multiply_add(dS[2 * step + 1], erased, kd, 1);
  }
}

/// dV^T [16 columns, 16 tokens] to rows of tokens. `to` is element (first token of the chunk, this warp's first column).
/// 16-bit formats go through `tile` in shared memory, for stores of 16 bytes.
__device__ __forceinline__ void store_value_gradient(const float (&dV)[2][4], void* data, std::int64_t to, std::int64_t stride,
                                                     Stored format, int tokens, Address tile, unsigned lane) {
  if (format == Stored::fp32) {
#pragma unroll
    for (int e = 0; e < 8; ++e) {
      const int token = 8 * (e / 4) + 2 * static_cast<int>(lane % 4) + e % 2, column = static_cast<int>(lane / 4) + 8 * (e % 4 / 2);
      if (token < tokens) static_cast<float*>(data)[to + token * stride + column] = dV[e / 4][e % 4];
    }
    return;
  }
  std::uint32_t words[4];
#pragma unroll
  for (int m = 0; m < 4; ++m) {
    const float x = dV[m / 2][2 * (m % 2)], y = dV[m / 2][2 * (m % 2) + 1];
    words[m] = format == Stored::fp16 ? pack_fp16(x, y) : pack_bf16(x, y);
  }
  store_matrices_transposed(tile + tile_offset(lane % 8 + 8 * (lane / 16), (lane / 8) % 2), words);
  sync_warp();
  const int token = static_cast<int>(lane / 2), half = static_cast<int>(lane % 2);
  load_shared_quad(words, tile + tile_offset(token, half));
  if (token < tokens) store_global(static_cast<std::uint16_t*>(data) + to + token * stride + 8 * half, words);
}

/// All chunks of a sequence for value columns [column, column + 16), the last one first.
template <int K, int pieces, bool half_precision, bool narrow = false, class Supply>
__device__ __forceinline__ void consume_adjoint(const SweepArguments& sweep, Supply supply, Address area, Span span, std::int64_t n,
                                                int head, int column, unsigned lane) {
  const ForwardArguments& args = sweep.call;
  float dS[K / 8][4];
  load_state<K, narrow>(dS, sweep.d_final_state, args, n * args.state_heads + head, column, lane);
  const int chunks = static_cast<int>((span.length + chunk_tokens - 1) / chunk_tokens);
  const bool present = sweep.d_o.data != nullptr;
  // Without a cotangent nothing is read; the address of the values stands for one.
  const auto* d_o = present ? static_cast<const std::uint16_t*>(sweep.d_o.data) + row_of(sweep.d_o, span.batch, span.first, head) + column +
                                  8 * (lane % 2)
                            : static_cast<const std::uint16_t*>(args.v.data);
  const std::int64_t row = static_cast<std::int64_t>(args.HV) * args.V, plane = row * sweep.rows_total;
  std::uint16_t* M_rows = sweep.rows + (span.batch * args.T + span.first) * row + static_cast<std::int64_t>(head) * args.V + column;
  const std::int64_t dv = row_of(sweep.dv, span.batch, span.first, head) + column;
  const auto start_of = [&](int position) { return static_cast<std::int64_t>(chunks - 1 - position) * chunk_tokens; };
  const auto fetch = [&](int position) {
    if (position < chunks)
      fetch_tile(area + (position % value_ring) * tile_bytes, d_o, sweep.d_o.token, start_of(position), span, present, lane);
    copy_async_commit();
  };
  for (int position = 0; position < value_ring - 1; ++position) fetch(position);
  for (int position = 0; position < chunks; ++position) {
    copy_async_wait<value_ring - 2>();
    const Address stage = supply.take(lane);
    sync_warp(); // the tile of this chunk is there for all lanes, and all lanes are done with the one that is overwritten next
    fetch(position + value_ring - 1);
    float M[2][4], dV[2][4];
    retreat_adjoint<K, pieces, half_precision, typename Supply::Layout>(dS, M, dV, stage, area + (position % value_ring) * tile_bytes,
                                                                        lane);
    sync_warp();
    supply.give_back(lane);
    const std::int64_t first = start_of(position), left = span.length - first;
    const int tokens = left < chunk_tokens ? static_cast<int>(left) : chunk_tokens;
    store_rows<pieces>(M, M_rows + first * row, row, plane, tokens, lane);
    if (sweep.dv.data != nullptr)
      store_value_gradient(dV, sweep.dv.data, dv + first * sweep.dv.token, sweep.dv.token, sweep.dv_format, tokens,
                           area + value_ring * tile_bytes, lane);
    if (first % segment_tokens == 0 && first > 0) {
      const std::int64_t slot = boundary_slot(args, span, first / segment_tokens);
      store_boundary<K, narrow>(dS, sweep.states + (slot * args.HV + head) * state_words(channels_of<K, narrow>(args), args.V), args,
                                column, lane);
    }
  }
  copy_async_wait<0>();
  store_state<K, narrow>(dS, sweep.d_initial_state, args, n * args.state_heads + head, column, lane);
}

template <int K, int pieces, bool half_precision, bool narrow = false>
__device__ __forceinline__ void adjoint_block(const SweepArguments& sweep) {
  sweep_block<K, pieces, half_precision, Sweep::adjoint, false, narrow>(
      sweep.call, [&](const Ring& ring, Address area, int gang, int column, unsigned lane) {
        const std::int64_t unit = sweep.call.first_unit + gang, n = unit / sweep.call.HV;
        consume_adjoint<K, pieces, half_precision, narrow>(sweep, RingSupply<StageLayout<K, pieces, Sweep::adjoint>>{ring}, area,
                                                           span_of(sweep.call, n), n, static_cast<int>(unit % sweep.call.HV), column, lane);
      });
}

} // namespace kdacheck::cuda
