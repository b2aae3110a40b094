#pragma once
// First pass of the backward pass: the states again, from the first chunk to the last. As the forward pass, but for
//   R^T = (V - kd S)^T (I + Akk diag(beta))^{-T}      U = beta R
// of which R is stored for every token and S at the boundaries of segments; there is no q and no output.

#include "../chunk/chunk_producer.cuh"
#include "backward_stores.cuh"
#include "backward_supply.cuh"

namespace kdacheck::cuda {

/// One chunk: R^T of 16 tokens, the state one chunk later.
template <int K, int pieces, bool half_precision, class Layout>
__device__ __forceinline__ void advance_states(float (&S)[K / 8][4], float (&R)[2][4], Address stage, Address values, unsigned lane) {
  const auto [row, segment, row_t, segment_t] = lane_places(lane);
  float P[2][4] = {};
#pragma unroll
  for (int step = 0; step < K / 16; ++step) {
    const Operand<pieces> s = as_operand<pieces>(S[2 * step], S[2 * step + 1]);
    Operand<pieces> kd;
    load_operand(kd, stage + Layout::kd + swizzled(row, 16 * step + 8 * segment, K * 2), Layout::piece);
    multiply_add(P[0], s, kd, 0);
    multiply_add(P[1], s, kd, 1);
  }
  std::uint32_t v[4];
  load_tile_transposed(v, values, lane);
  subtract_from_values<half_precision>(P, v);
  Operand<pieces> triangle;
  load_operand(triangle, stage + Layout::T + tile_offset(row, segment), tile_bytes);
  const Operand<pieces> p = as_operand<pieces>(P[0], P[1]);
#pragma unroll
  for (int e = 0; e < 8; ++e) R[e / 4][e % 4] = 0;
  multiply_add(R[0], p, triangle, 0);
  multiply_add(R[1], p, triangle, 1);
  float U[2][4];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const Pair beta = load_shared_pair(stage + Layout::betas + 4 * (8 * half + 2 * (lane % 4)));
#pragma unroll
    for (int e = 0; e < 4; ++e) U[half][e] = R[half][e] * (e % 2 == 0 ? beta.x : beta.y);
  }
  decay_state<K>(S, stage + Layout::decay, lane);
  const Operand<pieces> u = as_operand<pieces>(U[0], U[1]);
#pragma unroll
  for (int step = 0; step < K / 16; ++step) {
    Operand<pieces> kr;
    load_operand_transposed(kr, stage + Layout::kr + swizzled(row_t, 16 * step + 8 * segment_t, K * 2), Layout::piece);
    multiply_add(S[2 * step], u, kr, 0);
    multiply_add(S[2 * step + 1], u, kr, 1);
  }
}

/// All chunks of a sequence for value columns [column, column + 16).
template <int K, int pieces, bool half_precision, bool narrow = false, class Supply>
__device__ __forceinline__ void consume_states(const SweepArguments& sweep, Supply supply, Address area, Span span, std::int64_t n,
                                               int head, int column, unsigned lane) {
  const ForwardArguments& args = sweep.call;
  float S[K / 8][4];
  load_state<K, narrow>(S, args.initial_state, args, n * args.state_heads + head, column, lane);
  const int chunks = static_cast<int>((span.length + chunk_tokens - 1) / chunk_tokens);
  const auto* v = static_cast<const std::uint16_t*>(args.v.data) + row_of(args.v, span.batch, span.first, head) + column + 8 * (lane % 2);
  const std::int64_t row = static_cast<std::int64_t>(args.HV) * args.V, plane = row * sweep.rows_total;
  std::uint16_t* R_rows = sweep.rows + (span.batch * args.T + span.first) * row + static_cast<std::int64_t>(head) * args.V + column;
  const auto fetch = [&](int chunk) {
    if (chunk < chunks)
      fetch_tile(area + (chunk % value_ring) * tile_bytes, v, args.v.token, static_cast<std::int64_t>(chunk) * chunk_tokens, span, true,
                 lane);
    copy_async_commit();
  };
  for (int chunk = 0; chunk < value_ring - 1; ++chunk) fetch(chunk);
  for (int chunk = 0; chunk < chunks; ++chunk) {
    copy_async_wait<value_ring - 2>();
    const Address stage = supply.take(lane);
    sync_warp(); // the tile of this chunk is there for all lanes, and all lanes are done with the one that is overwritten next
    fetch(chunk + value_ring - 1);
    float R[2][4];
    advance_states<K, pieces, half_precision, typename Supply::Layout>(S, R, stage, area + (chunk % value_ring) * tile_bytes, lane);
    sync_warp();
    supply.give_back(lane);
    const std::int64_t first = static_cast<std::int64_t>(chunk) * chunk_tokens, left = span.length - first;
    store_rows<pieces>(R, R_rows + first * row, row, plane, left < chunk_tokens ? static_cast<int>(left) : chunk_tokens, lane);
    if ((first + chunk_tokens) % segment_tokens == 0 && chunk + 1 < chunks) {
      const std::int64_t slot = boundary_slot(args, span, (first + chunk_tokens) / segment_tokens);
      store_boundary<K, narrow>(S, sweep.states + (slot * args.HV + head) * state_words(channels_of<K, narrow>(args), args.V), args, column,
                                lane);
    }
  }
  copy_async_wait<0>();
}

template <int K, int pieces, bool half_precision, bool narrow = false>
__device__ __forceinline__ void states_block(const SweepArguments& sweep) {
  sweep_block<K, pieces, half_precision, Sweep::states, false, narrow>(
      sweep.call, [&](const Ring& ring, Address area, int gang, int column, unsigned lane) {
        const std::int64_t unit = sweep.call.first_unit + gang, n = unit / sweep.call.HV;
        consume_states<K, pieces, half_precision, narrow>(sweep, RingSupply<StageLayout<K, pieces, Sweep::states>>{ring}, area,
                                                          span_of(sweep.call, n), n, static_cast<int>(unit % sweep.call.HV), column, lane);
      });
}

} // namespace kdacheck::cuda
