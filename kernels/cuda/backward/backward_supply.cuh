#pragma once
// Where a consumer warp of a sweep gets the stages of its chunks from: producers of the same block or cluster, or the
// workspace, where an earlier launch has put them.

#include "../chunk/chunk_consumer.cuh"

namespace kdacheck::cuda {

/// The ring that producer warps fill.
template <class StageLayout> struct RingSupply {
  using Layout = StageLayout;
  Ring ring;
  int stage = 0;
  unsigned parity = 0, owner = 0; ///< owner = stage % sharing

  /// Waits for the stage of the next chunk.
  __device__ __forceinline__ Address take(unsigned) {
    barrier_wait(ring.full(stage), parity);
    return ring.stages + stage * Layout::bytes;
  }
  /// All lanes are done with it.
  __device__ __forceinline__ void give_back(unsigned lane) {
    if (speaks(lane)) ring.give_back(stage, owner);
    if (++owner == ring.sharing) owner = 0;
    if (++stage == ring.count) {
      stage = 0;
      parity ^= 1;
    }
  }
};

inline constexpr int most_copies = 8; ///< stages in flight
inline constexpr int copy_barrier_bytes = 16 * most_copies;

/// A ring that is filled by copies of whole stages from the workspace. The block's first warp starts them: as many ahead as
/// all warps have given back, so that none waits but for memory.
template <class StagePart> struct CopySupply {
  using Layout = StagePart;
  Address barriers, stages;
  const unsigned char* from; ///< the part of the chunk that is copied next
  std::int64_t stride;       ///< bytes to the chunk after it
  int left, count;           ///< chunks not yet copied; stages of the ring
  bool starts;               ///< this warp starts copies
  int stage = 0, ahead = 0;  ///< `ahead`: copies started, less chunks taken
  unsigned parity = 0;
  int next_stage = 0;
  unsigned next_parity = 1; ///< of the phase that says that the next stage is free; its first use waits for nothing

  __device__ __forceinline__ Address full(int which) const { return barriers + 16 * which; }
  __device__ __forceinline__ Address empty(int which) const { return barriers + 16 * which + 8; }

  __device__ __forceinline__ void start_copies() {
    while (left > 0 && ahead < count) {
      if (!barrier_test(empty(next_stage), next_parity)) {
        if (ahead > 0) return;
        continue;
      }
      barrier_expect(full(next_stage), Layout::bytes);
      copy_bulk(stages + next_stage * Layout::bytes, from, Layout::bytes, full(next_stage));
      from += stride;
      --left, ++ahead;
      if (++next_stage == count) {
        next_stage = 0;
        next_parity ^= 1;
      }
    }
  }
  __device__ __forceinline__ Address take(unsigned lane) {
    if (starts && lane == 0) start_copies();
    barrier_wait(full(stage), parity);
    return stages + stage * Layout::bytes;
  }
  __device__ __forceinline__ void give_back(unsigned lane) {
    if (speaks(lane)) barrier_arrive(empty(stage));
    --ahead;
    if (++stage == count) {
      stage = 0;
      parity ^= 1;
    }
  }
};

} // namespace kdacheck::cuda
