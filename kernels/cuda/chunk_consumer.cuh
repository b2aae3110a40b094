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

/// `from` may be absent: zero.
template <int K, bool narrow = false>
__device__ __forceinline__ void load_state(float (&S)[K / 8][4], const float* from, const ForwardArguments& args, std::int64_t head,
                                           int column, unsigned lane) {
#pragma unroll
  for (int tile = 0; tile < K / 8; ++tile)
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int channel = tile * 8 + 2 * (lane % 4) + e % 2, j = column + lane / 4 + 8 * (e / 2);
      S[tile][e] = from != nullptr && (!narrow || channel < args.K) ? from[state_offset(args, head, channel, j)] : 0.0f;
    }
}

/// `to` may be absent: nothing is stored.
template <int K, bool narrow = false>
__device__ __forceinline__ void store_state(const float (&S)[K / 8][4], float* to, const ForwardArguments& args, std::int64_t head,
                                            int column, unsigned lane) {
  if (to == nullptr) return;
#pragma unroll
  for (int tile = 0; tile < K / 8; ++tile)
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int channel = tile * 8 + 2 * (lane % 4) + e % 2, j = column + lane / 4 + 8 * (e / 2);
      if (!narrow || channel < args.K) to[state_offset(args, head, channel, j)] = S[tile][e];
    }
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

/// One chunk: outputs of 16 tokens in O, the state one chunk later.
template <int K, int pieces, bool half_precision>
__device__ __forceinline__ void advance(float (&S)[K / 8][4], float (&O)[2][4], Address stage, Address values, unsigned lane) {
  using Layout = StageLayout<K, pieces>;
  const auto [row, segment, row_t, segment_t] = lane_places(lane);
  float P[2][4] = {};
#pragma unroll
  for (int e = 0; e < 8; ++e) O[e / 4][e % 4] = 0;
#pragma unroll
  for (int step = 0; step < K / 16; ++step) {
    const Operand<pieces> s = as_operand<pieces>(S[2 * step], S[2 * step + 1]);
    const unsigned offset = swizzled(row, 16 * step + 8 * segment, K * 2);
    Operand<pieces> kd, qd;
    load_operand(kd, stage + Layout::kd + offset, Layout::piece);
    load_operand(qd, stage + Layout::qd + offset, Layout::piece);
    multiply_add(P[0], s, kd, 0);
    multiply_add(P[1], s, kd, 1);
    multiply_add(O[0], s, qd, 0);
    multiply_add(O[1], s, qd, 1);
  }
  std::uint32_t v[4];
  load_matrices_transposed(v, values + tile_offset(lane % 8 + 8 * (lane / 16), (lane / 8) % 2));
  subtract_from_values<half_precision>(P, v);
  Operand<pieces> triangle, Aqk;
  load_operand(triangle, stage + Layout::T + tile_offset(row, segment), tile_bytes);
  load_operand(Aqk, stage + Layout::Aqk + tile_offset(row, segment), tile_bytes);
  const Operand<pieces> r = as_operand<pieces>(P[0], P[1]);
  float U[2][4] = {};
  multiply_add(U[0], r, triangle, 0);
  multiply_add(U[1], r, triangle, 1);
  const bool finite = is_finite(((U[0][0] + U[0][1]) + (U[0][2] + U[0][3])) + ((U[1][0] + U[1][1]) + (U[1][2] + U[1][3])));
  decay_state<K>(S, stage + Layout::decay, lane);
  Operand<pieces> u = as_operand<pieces>(U[0], U[1]);
#pragma unroll
  for (int step = 0; step < K / 16; ++step) {
    Operand<pieces> kr;
    load_operand_transposed(kr, stage + Layout::kr + swizzled(row_t, 16 * step + 8 * segment_t, K * 2), Layout::piece);
    multiply_add(S[2 * step], u, kr, 0);
    multiply_add(S[2 * step + 1], u, kr, 1);
  }
  if (any_lane(!finite)) [[unlikely]] { // a sum of finite numbers that overflows does no harm here
    load_operand(triangle, stage + Layout::T + tile_offset(row, segment), tile_bytes);
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
    const auto* v = static_cast<const std::uint16_t*>(args.v.data) + row_of(args.v, span.batch, span.first, head) + column + 8 * half;
    auto* o = static_cast<std::uint16_t*>(args.o.data) + row_of(args.o, span.batch, span.first, head) + column + 8 * half;
    const auto fetch = [&](int chunk) {
      if (chunk < stretch.last) {
        const std::int64_t t = static_cast<std::int64_t>(chunk) * chunk_tokens + token;
        const bool inside = t < span.length;
        copy_async(area + (chunk % value_ring) * tile_bytes + tile_offset(token, half), v + (inside ? t * args.v.token : 0),
                   inside ? 16 : 0);
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
    if (dealt && stretch.last < stretch.chunks)
      hand_over<K>(S, args, gang + 1, column, own_lane);
    else
      store_state<K, narrow>(S, args.final_state, args, stretch.unit, column, own_lane);
    if constexpr (!dealt) break;
  }
}

} // namespace kdacheck::cuda
