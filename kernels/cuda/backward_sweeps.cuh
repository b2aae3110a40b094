#pragma once
// Both sweeps of the backward pass over chunks that the workspace keeps (backward_stages.cuh). Neither needs the other's
// results: blocks of both run side by side. A block has consumer warps only.

#include "backward_adjoint.cuh"
#include "backward_stages.cuh"
#include "backward_states.cuh"

namespace kdacheck::cuda {

inline constexpr int most_kept_warps = 4; ///< consumer warps of a block; three blocks a multiprocessor

template <int K> constexpr __device__ __host__ int kept_shared_bytes(int ring, int warps) {
  return copy_barrier_bytes + ring * StagePart<K, 1, Sweep::adjoint>::bytes + warps * consumer_bytes;
}

/// The first half of the blocks goes back, the other half from first to last: multiprocessors, which take blocks in turn, then have
/// a like share of both.
template <int K, bool half_precision> __device__ __forceinline__ void kept_sweeps_block(const KeptSweepArguments& kept) {
  const ForwardArguments& args = kept.states.call;
  const unsigned warp = thread_index() / 32, lane = thread_index() % 32, slices = static_cast<unsigned>(kept.slices);
  const unsigned heads = static_cast<unsigned>(args.HV), half = static_cast<unsigned>(args.N) * heads * slices;
  const bool back = block_index() < half;
  const unsigned part = back ? block_index() : block_index() - half;
  const int slice = static_cast<int>(part % slices), head = static_cast<int>(part / slices % heads);
  const std::int64_t n = part / slices / heads;
  const Span span = span_of(args, n);
  const Address base = shared_base(), stages = base + copy_barrier_bytes;
  const Address area = stages + kept.ring * StagePart<K, 1, Sweep::adjoint>::bytes + warp * consumer_bytes;
  if (thread_index() == 0)
    for (int stage = 0; stage < kept.ring; ++stage) {
      barrier_init(base + 16 * stage, 1);
      barrier_init(base + 16 * stage + 8, static_cast<unsigned>(kept.warps));
    }
  sync_block();
  constexpr std::int64_t whole = StageLayout<K, 1, Sweep::stored>::bytes;
  const int chunks = static_cast<int>((span.length + chunk_tokens - 1) / chunk_tokens);
  const int column = (slice * kept.warps + static_cast<int>(warp)) * 16;
  const unsigned char* first = kept.data + (head * kept.slots + stage_slot(args, span, n)) * whole;
  if (back) {
    using Part = StagePart<K, 1, Sweep::adjoint>;
    const CopySupply<Part> supply{base, stages, first + (chunks - 1) * whole + Part::first, -whole, chunks, kept.ring, warp == 0};
    consume_adjoint<K, 1, half_precision>(kept.adjoint, supply, area, span, n, head, column, lane);
  } else {
    using Part = StagePart<K, 1, Sweep::states>;
    const CopySupply<Part> supply{base, stages, first + Part::first, whole, chunks, kept.ring, warp == 0};
    consume_states<K, 1, half_precision>(kept.states, supply, area, span, n, head, column, lane);
  }
}

} // namespace kdacheck::cuda
