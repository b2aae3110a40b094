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

/// A block of both sweeps: the first half of the blocks goes back, the other half from first to last: multiprocessors, which take blocks in
/// turn, then have a like share of both. `Back`, `Forth`: parts of a stage of `whole` bytes; `run_back` and `run_forth` take a supply of
/// them, a warp's area, the sequence, its number, the head and the first column.
template <class Back, class Forth, int whole, class RunBack, class RunForth>
__device__ __forceinline__ void both_sweeps(const KeptSweepArguments& kept, int stage_bytes, RunBack run_back, RunForth run_forth) {
  const ForwardArguments& args = kept.states.call;
  const unsigned warp = thread_index() / 32, slices = static_cast<unsigned>(kept.slices);
  const unsigned heads = static_cast<unsigned>(args.HV), half = static_cast<unsigned>(args.N) * heads * slices;
  const bool back = block_index() < half;
  const unsigned part = back ? block_index() : block_index() - half;
  const int slice = static_cast<int>(part % slices), head = static_cast<int>(part / slices % heads);
  const std::int64_t n = part / slices / heads;
  const Span span = span_of(args, n);
  const Address base = shared_base(), stages = base + copy_barrier_bytes;
  const Address area = stages + kept.ring * stage_bytes + warp * consumer_bytes;
  if (thread_index() == 0)
    for (int stage = 0; stage < kept.ring; ++stage) {
      barrier_init(base + 16 * stage, 1);
      barrier_init(base + 16 * stage + 8, static_cast<unsigned>(kept.warps) * warp_arrivals);
    }
  sync_block();
  const int chunks = static_cast<int>((span.length + chunk_tokens - 1) / chunk_tokens);
  const int column = (slice * kept.warps + static_cast<int>(warp)) * 16;
  const unsigned char* first = kept.data + (head * kept.slots + stage_slot(args, span, n)) * std::int64_t{whole};
  if (back)
    run_back(CopySupply<Back>{base, stages, first + (chunks - 1) * std::int64_t{whole} + Back::first, -std::int64_t{whole}, chunks,
                              kept.ring, warp == 0},
             area, span, n, head, column);
  else
    run_forth(CopySupply<Forth>{base, stages, first + Forth::first, whole, chunks, kept.ring, warp == 0}, area, span, n, head, column);
}

template <int K, bool half_precision> __device__ __forceinline__ void kept_sweeps_block(const KeptSweepArguments& kept) {
  const unsigned lane = thread_index() % 32;
  both_sweeps<StagePart<K, 1, Sweep::adjoint>, StagePart<K, 1, Sweep::states>, StageLayout<K, 1, Sweep::stored>::bytes>(
      kept, StagePart<K, 1, Sweep::adjoint>::bytes,
      [&](auto supply, Address area, Span span, std::int64_t n, int head, int column) {
        consume_adjoint<K, 1, half_precision>(kept.adjoint, supply, area, span, n, head, column, lane);
      },
      [&](auto supply, Address area, Span span, std::int64_t n, int head, int column) {
        consume_states<K, 1, half_precision>(kept.states, supply, area, span, n, head, column, lane);
      });
}

} // namespace kdacheck::cuda
