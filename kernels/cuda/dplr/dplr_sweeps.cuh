#pragma once
// First two passes of the general rule's backward pass.
//
// Stages: what the producers of the forward pass make of a chunk, worked out once, a warp a chunk, into the workspace.
// Sweeps, side by side in one launch, 16 value columns a warp, over these stages:
//   states   from first to last, as the forward pass without outputs:  R^T = S^T bd^T + V^T M^T    W^T = R^T (-T)^T
//            S^T = S^T e^{G_C} + V^T kr + W^T ar
//   adjoint  from last to first: dW^T = dS'^T ar^T + dO^T Aqa    Y^T = dW^T (-T)    dV^T = dS'^T kr^T + dO^T Aqk + Y^T M
//            dS^T = dS'^T e^{G_C} + dO^T qd + Y^T bd
// W and Y are stored for every token, S and dS at the boundaries of segments of 64 tokens.

#include "../backward/backward_sweeps.cuh"
#include "../host/dplr_workspace.hpp"
#include "dplr_producer.cuh"

namespace kdacheck::cuda {

/// A stage in the workspace, and the part of it that the sweep of states takes.
template <int K> struct KeptGeneral {
  using Stage = GeneralStage<K>;
  static constexpr int norms = Stage::bytes, bytes = norms + 128; ///< factors of 16 q rows, of 16 k rows
};
static_assert(kept_general_bytes(64) == KeptGeneral<64>::bytes && kept_general_bytes(128) == KeptGeneral<128>::bytes);
template <int K, Sweep sweep> struct GeneralPart {
  static constexpr int first = sweep == Sweep::states ? GeneralStage<K>::bd : 0;
  static constexpr int bytes = (sweep == Sweep::states ? GeneralStage<K>::Aqk : GeneralStage<K>::bytes) - first;
};

/// A block of independent warps. The heads of a chunk are taken by neighbouring warps, so that rows are read whole.
template <int K, bool half_precision> __device__ __forceinline__ void general_stages_block(const StageArguments& stages) {
  using Bench = GeneralBench<K>;
  using Kept = KeptGeneral<K>;
  const ForwardArguments& args = stages.call;
  const unsigned lane = thread_index() % 32, warps = static_cast<unsigned>(stages.warps), heads = static_cast<unsigned>(args.HV);
  const Address bench = shared_base() + thread_index() / 32 * Bench::bytes(args.gate_format == Stored::fp32 ? 4 : 2);
  const unsigned step = warps * static_cast<unsigned>(stages.blocks), all = static_cast<unsigned>(stages.slots) * heads;
  const auto fetch = [&](unsigned task) {
    if (task >= all) return;
    const ChunkPlace at = piece_of<chunk_tokens>(args, task / heads);
    const int head = static_cast<int>(task % heads);
    if (at.tokens > 0) fetch_general<K>(args, bench, at.span, static_cast<int>(at.number), head, head / (args.HV / args.H), lane);
  };
  unsigned task = block_index() * warps + thread_index() / 32;
  fetch(task);
  for (; task < all; task += step) {
    const int head = static_cast<int>(task % heads);
    const ChunkPlace at = piece_of<chunk_tokens>(args, task / heads);
    const auto begin_next = [&] { fetch(task + step); };
    if (at.tokens > 0) {
      for (unsigned c = lane; c < K; c += 32)
        store_shared(bench + Bench::biases + 4 * c, args.dt_bias != nullptr ? args.dt_bias[static_cast<std::int64_t>(head) * K + c] : 0.0f);
      copy_async_wait<0>();
      sync_warp();
      normalise_general<K, half_precision>(args, bench, lane);
      store_shared(bench + Bench::diagonal + 4 * lane, 0.0f);
      sync_warp();
      unsigned char* place =
          stages.data + (static_cast<std::int64_t>(head) * stages.slots + stage_slot(args, at.span, at.n) + at.number) * Kept::bytes;
      store_stage(place + Kept::norms + 4 * lane, load_shared_float(bench + Bench::norms + 4 * lane));
      prepare_general<K, half_precision>(args, bench, place, gate_of(args, head), bench + Bench::biases, at.tokens, lane, begin_next,
                                         [] {});
      sync_warp();
    } else {
      begin_next();
    }
  }
}

/// Where in a stage a lane finds operands of 16 channels from 16 step on.
template <int K> __device__ __forceinline__ Address general_operand(Address rows, unsigned row, unsigned segment, int step) {
  return rows + swizzled(row, 16 * static_cast<unsigned>(step) + 8 * segment, 2 * K);
}

/// One chunk: W^T of 16 tokens, the state one chunk later.
template <int K, bool half_precision>
__device__ __forceinline__ void advance_general_state(float (&S)[K / 8][4], float (&W)[2][4], Address stage, Address values,
                                                      unsigned lane) {
  using Stage = GeneralStage<K>;
  const auto [row, segment, row_t, segment_t] = lane_places(lane);
  float P[2][4] = {}, R[2][4] = {};
#pragma unroll
  for (int step = 0; step < K / 16; ++step) {
    const Operand<1> s = as_operand<1>(S[2 * step], S[2 * step + 1]);
    Operand<1> bd;
    load_matrices(bd.word[0], general_operand<K>(stage + Stage::bd, row, segment, step));
    multiply_add(P[0], s, bd, 0);
    multiply_add(P[1], s, bd, 1);
  }
  std::uint32_t words[4];
  load_tile_transposed(words, values, lane);
  const Operand<1> v = cotangent_operand<1, half_precision>(words);
  Operand<1> M, triangle;
  load_matrices(M.word[0], stage + Stage::M + tile_offset(row, segment));
  load_matrices(triangle.word[0], stage + Stage::T + tile_offset(row, segment));
  multiply_add(R[0], v, M, 0);
  multiply_add(R[1], v, M, 1);
#pragma unroll
  for (int e = 0; e < 8; ++e) R[e / 4][e % 4] += P[e / 4][e % 4], W[e / 4][e % 4] = 0;
  const Operand<1> r = as_operand<1>(R[0], R[1]);
  multiply_add(W[0], r, triangle, 0);
  multiply_add(W[1], r, triangle, 1);
  decay_state<K>(S, stage + Stage::decay, lane);
  const Operand<1> w = as_operand<1>(W[0], W[1]);
#pragma unroll
  for (int step = 0; step < K / 16; ++step) {
    Operand<1> kr, ar;
    load_matrices_transposed(kr.word[0], general_operand<K>(stage + Stage::kr, row_t, segment_t, step));
    load_matrices_transposed(ar.word[0], general_operand<K>(stage + Stage::ar, row_t, segment_t, step));
    multiply_add(S[2 * step], v, kr, 0);
    multiply_add(S[2 * step + 1], v, kr, 1);
    multiply_add(S[2 * step], w, ar, 0);
    multiply_add(S[2 * step + 1], w, ar, 1);
  }
}

/// One chunk back: Y^T and dV^T of 16 tokens, dS one chunk earlier.
template <int K, bool half_precision>
__device__ __forceinline__ void retreat_general(float (&dS)[K / 8][4], float (&Y)[2][4], float (&dV)[2][4], Address stage,
                                                Address cotangents, unsigned lane) {
  using Stage = GeneralStage<K>;
  const auto [row, segment, row_t, segment_t] = lane_places(lane);
  const Address turned = tile_offset(row_t, segment_t);
  float dW[2][4] = {};
#pragma unroll
  for (int e = 0; e < 8; ++e) dV[e / 4][e % 4] = Y[e / 4][e % 4] = 0;
#pragma unroll
  for (int step = 0; step < K / 16; ++step) {
    const Operand<1> s = as_operand<1>(dS[2 * step], dS[2 * step + 1]);
    Operand<1> ar, kr;
    load_matrices(ar.word[0], general_operand<K>(stage + Stage::ar, row, segment, step));
    load_matrices(kr.word[0], general_operand<K>(stage + Stage::kr, row, segment, step));
    multiply_add(dW[0], s, ar, 0);
    multiply_add(dW[1], s, ar, 1);
    multiply_add(dV[0], s, kr, 0);
    multiply_add(dV[1], s, kr, 1);
  }
  std::uint32_t words[4];
  load_tile_transposed(words, cotangents, lane);
  const bool finite = all_finite<half_precision>(words);
  int last[2] = {-1, -1};
  if (!finite) take_out_not_finite<half_precision>(words, last, lane);
  Operand<1> Aqa, Aqk, triangle, M;
  load_matrices_transposed(Aqa.word[0], stage + Stage::Aqa + turned);
  load_matrices_transposed(Aqk.word[0], stage + Stage::Aqk + turned);
  {
    const Operand<1> within_chunk = cotangent_operand<1, half_precision>(words);
    multiply_add(dW[0], within_chunk, Aqa, 0);
    multiply_add(dW[1], within_chunk, Aqa, 1);
    multiply_add(dV[0], within_chunk, Aqk, 0);
    multiply_add(dV[1], within_chunk, Aqk, 1);
  }
  load_matrices_transposed(triangle.word[0], stage + Stage::T + turned);
  load_matrices_transposed(M.word[0], stage + Stage::M + turned);
  const Operand<1> dw = as_operand<1>(dW[0], dW[1]);
  multiply_add(Y[0], dw, triangle, 0);
  multiply_add(Y[1], dw, triangle, 1);
  Operand<1> y = as_operand<1>(Y[0], Y[1]);
  multiply_add(dV[0], y, M, 0);
  multiply_add(dV[1], y, M, 1);
  if (!finite) {
#pragma unroll
    for (int e = 0; e < 8; ++e)
      if (8 * (e / 4) + 2 * static_cast<int>(lane % 4) + e % 2 <= last[e % 4 / 2]) Y[e / 4][e % 4] = dV[e / 4][e % 4] = NAN;
    y = as_operand<1>(Y[0], Y[1]);
    load_tile_transposed(words, cotangents, lane);
  }
  decay_state<K>(dS, stage + Stage::decay, lane);
  const Operand<1> d_o = cotangent_operand<1, half_precision>(words);
#pragma unroll
  for (int step = 0; step < K / 16; ++step) {
    Operand<1> qd, bd;
    load_matrices_transposed(qd.word[0], general_operand<K>(stage + Stage::qd, row_t, segment_t, step));
    load_matrices_transposed(bd.word[0], general_operand<K>(stage + Stage::bd, row_t, segment_t, step));
    multiply_add(dS[2 * step], d_o, qd, 0);
    multiply_add(dS[2 * step + 1], d_o, qd, 1);
    multiply_add(dS[2 * step], y, bd, 0);
    multiply_add(dS[2 * step + 1], y, bd, 1);
  }
}

/// All chunks of a sequence for value columns [column, column + 16). `back`: the adjoint, from the last chunk.
template <int K, bool half_precision, bool back, class Supply>
__device__ __forceinline__ void sweep_general(const SweepArguments& sweep, Supply supply, Address area, Span span, std::int64_t n, int head,
                                              int column, unsigned lane) {
  const ForwardArguments& args = sweep.call;
  constexpr int first_byte = Supply::Layout::first;
  float S[K / 8][4];
  load_state<K>(S, back ? sweep.d_final_state : args.initial_state, args, n * args.HV + head, column, lane);
  const int chunks = static_cast<int>((span.length + chunk_tokens - 1) / chunk_tokens);
  const View& tiles = back ? sweep.d_o : args.v;
  const bool present = tiles.data != nullptr;
  // Without a cotangent nothing is read; the address of the values stands for one.
  const auto* from = static_cast<const std::uint16_t*>(present ? tiles.data : args.v.data) +
                     (present ? row_of(tiles, span.batch, span.first, head) + column + 8 * (lane % 2) : 0);
  const std::int64_t row = static_cast<std::int64_t>(args.HV) * args.V;
  std::uint16_t* rows = sweep.rows + (span.batch * args.T + span.first) * row + static_cast<std::int64_t>(head) * args.V + column;
  const std::int64_t dv = row_of(sweep.dv, span.batch, span.first, head) + column;
  const auto start_of = [&](int position) { return static_cast<std::int64_t>(back ? chunks - 1 - position : position) * chunk_tokens; };
  const auto fetch = [&](int position) {
    if (position < chunks)
      fetch_tile(area + (position % value_ring) * tile_bytes, from, tiles.token, start_of(position), span, present, lane);
    copy_async_commit();
  };
  for (int position = 0; position < value_ring - 1; ++position) fetch(position);
  for (int position = 0; position < chunks; ++position) {
    copy_async_wait<value_ring - 2>();
    const Address stage = supply.take(lane) - first_byte;
    sync_warp(); // the tile of this chunk is there for all lanes, and all lanes are done with the one that is overwritten next
    fetch(position + value_ring - 1);
    const Address tile = area + (position % value_ring) * tile_bytes;
    float X[2][4];
    const std::int64_t first = start_of(position), left = span.length - first;
    const int tokens = left < chunk_tokens ? static_cast<int>(left) : chunk_tokens;
    if constexpr (back) {
      float dV[2][4];
      retreat_general<K, half_precision>(S, X, dV, stage, tile, lane);
      sync_warp();
      supply.give_back(lane);
      if (sweep.dv.data != nullptr)
        store_value_gradient(dV, sweep.dv.data, dv + first * sweep.dv.token, sweep.dv.token, sweep.dv_format, tokens,
                             area + value_ring * tile_bytes, lane);
    } else {
      advance_general_state<K, half_precision>(S, X, stage, tile, lane);
      sync_warp();
      supply.give_back(lane);
    }
    store_rows<1>(X, rows + first * row, row, 0, tokens, lane);
    const std::int64_t boundary = back ? first : first + chunk_tokens;
    if (boundary % segment_tokens == 0 && boundary > 0 && boundary < span.length)
      store_boundary<K>(S, sweep.states + (boundary_slot(args, span, boundary / segment_tokens) * args.HV + head) * state_words(K, args.V),
                        args, column, lane);
  }
  copy_async_wait<0>();
  if constexpr (back) store_state<K>(S, sweep.d_initial_state, args, n * args.HV + head, column, lane);
}

template <int K> constexpr __device__ __host__ int general_sweep_bytes(int ring, int warps) {
  return copy_barrier_bytes + ring * GeneralStage<K>::bytes + warps * consumer_bytes;
}

template <int K, bool half_precision> __device__ __forceinline__ void general_sweeps_block(const KeptSweepArguments& kept) {
  const unsigned lane = thread_index() % 32;
  both_sweeps<GeneralPart<K, Sweep::adjoint>, GeneralPart<K, Sweep::states>, KeptGeneral<K>::bytes>(
      kept, GeneralStage<K>::bytes,
      [&](auto supply, Address area, Span span, std::int64_t n, int head, int column) {
        sweep_general<K, half_precision, true>(kept.adjoint, supply, area, span, n, head, column, lane);
      },
      [&](auto supply, Address area, Span span, std::int64_t n, int head, int column) {
        sweep_general<K, half_precision, false>(kept.states, supply, area, span, n, head, column, lane);
      });
}

} // namespace kdacheck::cuda
