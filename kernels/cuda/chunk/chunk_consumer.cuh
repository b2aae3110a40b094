#pragma once
// The serial half of the chunk kernel: one warp carries 16 value columns of the state through all chunks.
//
// The state is held transposed, S^T [16 columns, K] fp32, in the accumulators of the tensor cores, and never leaves the
// registers. Per chunk, everything transposed so that each result is the next left operand as it lies:
//   P^T = S^T kd^T    R = V - P (fp32)    U^T = R^T (T diag(beta))^T    O^T = S^T qd^T + U^T Aqk^T    S^T = S^T e^{G_C} + U^T kr
// Warps do not talk to each other; they wait for stages and give them back.

#include "chunk_mixed.cuh"
#include "chunk_shifts.cuh"

namespace kdacheck::cuda {

template <int pieces> __device__ __forceinline__ void load_operand(Operand<pieces>& operand, Address row, int piece_bytes) {
#pragma unroll
  for (int piece = 0; piece < pieces; ++piece) load_matrices(operand.word[piece], row + piece * piece_bytes);
}
template <int pieces> __device__ __forceinline__ void load_operand_transposed(Operand<pieces>& operand, Address row, int piece_bytes) {
#pragma unroll
  for (int piece = 0; piece < pieces; ++piece) load_matrices_transposed(operand.word[piece], row + piece * piece_bytes);
}

/// Offset of element (channel, column) in a head's state.
__device__ __forceinline__ std::int64_t state_offset(const ForwardArguments& args, std::int64_t head, int channel, int column) {
  const std::int64_t base = head * args.K * args.V;
  return base +
         (args.v_first ? static_cast<std::int64_t>(column) * args.K + channel : static_cast<std::int64_t>(channel) * args.V + column);
}

/// Where a lane's elements of a head's state lie: S[tile][e] at `first` + (8 tile + e % 2) `channel` + 8 (e / 2) `column`.
struct StatePlaces {
  std::int64_t first;
  int channel, column;
};
__device__ __forceinline__ StatePlaces state_places(const ForwardArguments& args, std::int64_t head, int column, unsigned lane) {
  const int step_channel = args.v_first ? 1 : args.V, step_column = args.v_first ? args.K : 1;
  const int channel = 2 * static_cast<int>(lane % 4), j = column + static_cast<int>(lane / 4);
  return {head * args.K * args.V + static_cast<std::int64_t>(channel) * step_channel + static_cast<std::int64_t>(j) * step_column,
          step_channel, step_column};
}

/// `from` may be absent: zero.
template <int K, bool narrow = false>
__device__ __forceinline__ void load_state(float (&S)[K / 8][4], const float* from, const ForwardArguments& args, std::int64_t head,
                                           int column, unsigned lane) {
  const StatePlaces at = state_places(args, head, column, lane);
  const float* tile_from = from + at.first;
#pragma unroll
  for (int tile = 0; tile < K / 8; ++tile, tile_from += 8 * at.channel)
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const bool present = from != nullptr && (!narrow || 8 * tile + 2 * static_cast<int>(lane % 4) + e % 2 < args.K);
      S[tile][e] = present ? tile_from[e % 2 * at.channel + 8 * (e / 2) * at.column] : 0.0f;
    }
}

/// `to` may be absent: nothing is stored.
template <int K, bool narrow = false>
__device__ __forceinline__ void store_state(const float (&S)[K / 8][4], float* to, const ForwardArguments& args, std::int64_t head,
                                            int column, unsigned lane) {
  if (to == nullptr) return;
  const StatePlaces at = state_places(args, head, column, lane);
  float* tile_to = to + at.first;
#pragma unroll
  for (int tile = 0; tile < K / 8; ++tile, tile_to += 8 * at.channel)
#pragma unroll
    for (int e = 0; e < 4; ++e)
      if (!narrow || 8 * tile + 2 * static_cast<int>(lane % 4) + e % 2 < args.K)
        tile_to[e % 2 * at.channel + 8 * (e / 2) * at.column] = S[tile][e];
}

/// Stage and barrier bookkeeping shared by both halves. Chunk c lies in stage c % count of every block of a cluster; the
/// block of rank c % sharing prepares it, sends it to the others, and owns the barrier that says it is free again. count is a
/// multiple of sharing, so that a stage has one owner.
struct Ring {
  Address barriers, stages;
  int count;
  unsigned sharing, rank;
  __device__ __forceinline__ Address full(int stage) const { return barriers + 16 * stage; }
  __device__ __forceinline__ Address empty(int stage) const { return barriers + 16 * stage + 8; }
  /// Rounds that this block has prepared in the stage so far.
  __device__ __forceinline__ Address rounds(int stage) const { return barriers + 16 * most_stages + 8 * stage; }
  __device__ __forceinline__ void give_back(int stage, unsigned owner) const {
    if (owner == rank)
      barrier_arrive(empty(stage));
    else
      barrier_arrive_remote(remote_address(empty(stage), owner));
  }
};

/// One chunk: outputs of 16 tokens in O, the state one chunk later. Operands are asked for a step or two before they are multiplied.
template <int K, int pieces, bool half_precision>
__device__ __forceinline__ void advance(float (&S)[K / 8][4], float (&O)[2][4], Address stage, Address values, unsigned lane) {
  using Layout = StageLayout<K, pieces>;
  constexpr int steps = K / 16;
  const auto [row, segment, row_t, segment_t] = lane_places(lane);
  const Address rows = stage + swizzled(row, 8 * segment, K * 2), rows_t = stage + swizzled(row_t, 8 * segment_t, K * 2);
  const Address tile = stage + tile_offset(row, segment), decays = stage + Layout::decay + 8 * (lane % 4);
  Operand<pieces> kd[2], qd[2], kr[3], triangle, Aqk;
  std::uint32_t v[4];
  const auto load_rows = [&](int step) {
    load_operand(kd[step % 2], steps_further(rows, step) + Layout::kd, Layout::piece);
    load_operand(qd[step % 2], steps_further(rows, step) + Layout::qd, Layout::piece);
  };
  const auto load_kr = [&](int step) {
    if (step < steps) load_operand_transposed(kr[step % 3], steps_further(rows_t, step) + Layout::kr, Layout::piece);
  };
  float P[2][4] = {};
#pragma unroll
  for (int e = 0; e < 8; ++e) O[e / 4][e % 4] = 0;
  load_rows(0);
#pragma unroll
  for (int step = 0; step < steps; ++step) {
    if (step + 1 < steps) {
      load_rows(step + 1);
    } else {
      load_matrices_transposed(v, values + tile_offset(lane % 8 + 8 * (lane / 16), (lane / 8) % 2));
      load_operand(triangle, tile + Layout::T, tile_bytes);
    }
    const Operand<pieces> s = as_operand<pieces>(S[2 * step], S[2 * step + 1]);
    decay_tiles(S, decays, 2 * step); // here, where products leave room
    multiply_add(P[0], s, kd[step % 2], 0);
    multiply_add(P[1], s, kd[step % 2], 1);
    multiply_add(O[0], s, qd[step % 2], 0);
    multiply_add(O[1], s, qd[step % 2], 1);
  }
  subtract_from_values<half_precision>(P, v);
  const Operand<pieces> r = as_operand<pieces>(P[0], P[1]);
  float U[2][4] = {};
  load_kr(0);
  load_kr(1);
  multiply_add(U[0], r, triangle, 0);
  multiply_add(U[1], r, triangle, 1);
  const bool finite = is_finite(((U[0][0] + U[0][1]) + (U[0][2] + U[0][3])) + ((U[1][0] + U[1][1]) + (U[1][2] + U[1][3])));
  Operand<pieces> u = as_operand<pieces>(U[0], U[1]);
#pragma unroll
  for (int step = 0; step < steps; ++step) {
    load_kr(step + 2);
    if (step + 1 == steps) load_operand(Aqk, tile + Layout::Aqk, tile_bytes);
    multiply_add(S[2 * step], u, kr[step % 3], 0);
    multiply_add(S[2 * step + 1], u, kr[step % 3], 1);
  }
  if (any_lane(!finite)) [[unlikely]] { // a sum of finite numbers that overflows does no harm here
    load_operand(triangle, tile + Layout::T, tile_bytes);
    Operand<pieces> residuals = r;
    keep_in_order(u, O, residuals, lane, [&](Operand<pieces>& updates, const Operand<pieces>& kept) {
      float sums[2][4] = {};
      multiply_add(sums[0], kept, triangle, 0);
      multiply_add(sums[1], kept, triangle, 1);
      updates = as_operand<pieces>(sums[0], sums[1]);
    });
  }
  multiply_add(O[0], u, Aqk, 0);
  multiply_add(O[1], u, Aqk, 1);
}

/// All chunks of a gang for value columns [column, column + 16). `advance_chunk(S, O, stage, values, lane)` does one.
template <int K, int stage_bytes, bool half_precision, bool dealt, bool narrow = false, class Advance>
__device__ __forceinline__ void consume(const ForwardArguments& args, const Ring& ring, Address area, int gang, int column,
                                        unsigned own_lane, Advance advance_chunk) {
  const Address output = area + value_ring * tile_bytes;
  int stage = 0;
  unsigned parity = 0, owner = 0; // owner = stage % sharing
  Stretch stretch;
#pragma unroll 1
  for (int number = 0; stretch_of<dealt>(args, gang, number, stretch); ++number) {
    const int head = stretch.unit % args.HV;
    const Span span = span_of(args, stretch.unit / args.HV);
    float S[K / 8][4];
    if (dealt && stretch.first > 0)
      take_over<K>(S, args, gang, column, own_lane);
    else
      load_state<K, narrow>(S, args.initial_state, args, stretch.unit, column, own_lane);
    // Places that a lane addresses are kept in registers from here on; known before, they were worked out in every chunk.
    const unsigned lane = dealt ? renewed(own_lane) : own_lane, token = lane / 2,
                   half = lane % 2; // each lane copies 16 bytes: half a row of one token
    const std::int64_t first_token = static_cast<std::int64_t>(stretch.first) * chunk_tokens + token;
    // What this lane copies of the chunk that is fetched next, and of the one that is stored next; chunks in which it has a token.
    const auto* v =
        static_cast<const std::uint16_t*>(args.v.data) + row_of(args.v, span.batch, span.first + first_token, head) + column + 8 * half;
    auto* o = static_cast<std::uint16_t*>(args.o.data) + row_of(args.o, span.batch, span.first + first_token, head) + column + 8 * half;
    const int inside = static_cast<int>((span.length - token + chunk_tokens - 1) / chunk_tokens);
    const auto fetch = [&](int chunk) {
      if (chunk < stretch.last) { // where nothing is read, the address may lie outside the tensor
        copy_async(area + (chunk % value_ring) * tile_bytes + tile_offset(token, half), v, chunk < inside ? 16 : 0);
        v += chunk_tokens * args.v.token;
      }
      copy_async_commit();
    };
    for (int chunk = stretch.first; chunk < stretch.first + value_ring - 1; ++chunk) fetch(chunk);
    for (int chunk = stretch.first; chunk < stretch.last; ++chunk) {
      copy_async_wait<value_ring - 2>();
      barrier_wait(ring.full(stage), parity);
      sync_warp(); // the tile of this chunk is there for all lanes, and all lanes are done with the one that is overwritten next
      fetch(chunk + value_ring - 1);
      float O[2][4];
      advance_chunk(S, O, ring.stages + stage * stage_bytes, area + (chunk % value_ring) * tile_bytes, lane);
      sync_warp();
      if (speaks(lane)) ring.give_back(stage, owner);
      std::uint32_t words[4];
#pragma unroll
      for (int m = 0; m < 4; ++m) {
        const float x = O[m / 2][2 * (m % 2)], y = O[m / 2][2 * (m % 2) + 1];
        words[m] = half_precision ? pack_fp16(x, y) : pack_bf16(x, y);
      }
      store_matrices_transposed(output + tile_offset(lane % 8 + 8 * (lane / 16), (lane / 8) % 2), words);
      sync_warp();
      load_shared_quad(words, output + tile_offset(token, half));
      if (chunk < inside) store_global_at_once(o, words);
      o += chunk_tokens * args.o.token;
      if (++owner == ring.sharing) owner = 0;
      if (++stage == ring.count) {
        stage = 0;
        parity ^= 1;
      }
    }
    copy_async_wait<0>();
    const unsigned last_lane = renewed(own_lane); // or all places of the state would be kept from load_state on
    if (dealt && stretch.last < stretch.chunks)
      hand_over<K>(S, args, gang + 1, column, last_lane);
    else
      store_state<K, narrow>(S, args.final_state, args, stretch.unit, column, last_lane);
    if constexpr (!dealt) break;
  }
}

} // namespace kdacheck::cuda
