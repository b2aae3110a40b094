#pragma once
// Which chunks a gang of blocks works through.
//
// A *unit* is a sequence and value head. A *gang* is what works on one unit at a time: the blocks of a cluster. Where units are
// more than gangs, but not many times more, whole units leave gangs idle at the end. Then all chunks of all units form one row,
// and each gang takes as many neighbouring chunks of it as every other: the *stretch* that ends its part first, then those
// before it, the one that begins it last. That one may be the rest of a unit whose beginning the gang below worked through at
// once: its state is handed over in the workspace long before it is due. Numbers of gangs are given out in the order in which
// they start, so that a gang waits only for one that runs or has run.
//
// Handover: a count of gangs that have started; flags [most_gangs][most_groups] at 256; states [gangs][V/16][16 K] fp32 behind them, as
// the consumer warps hold them.

#include "../device/rows.cuh"
#include "chunk_layout.cuh"

namespace kdacheck::cuda {

/// Chunks [first, last) of a unit that has `chunks`; `done` chunks of the gang's come before them.
struct Stretch {
  int unit, first, last, chunks, done;
};

/// `dealt`: whether a kernel has code for more than a unit a gang. Code for one unit alone keeps more in registers.
/// A gang's stretch `number`; false if it has no more, which is not asked where it has one. All that it takes is worked out anew each time:
/// registers are what a producer lacks. Not dealt out, a gang has the unit of its number. The host sees to it that numbers of units, and
/// with args.share those of all chunks, are below 2^31.
template <bool dealt> __device__ __forceinline__ bool stretch_of(const ForwardArguments& args, int gang, int number, Stretch& stretch) {
  if constexpr (!dealt) {
    const int unit = static_cast<int>(args.first_unit) + gang;
    const int chunks = static_cast<int>((span_of(args, unit / args.HV).length + chunk_tokens - 1) / chunk_tokens);
    stretch = {unit, 0, chunks, chunks, 0};
    return true;
  }
  const int chunks = static_cast<int>((args.T + chunk_tokens - 1) / chunk_tokens), all = static_cast<int>(args.N) * args.HV * chunks;
  const int begin = gang * args.share, end = begin + args.share < all ? begin + args.share : all;
  const int top = (end - 1) / chunks, unit = top - number, start = unit * chunks, in_top = end - top * chunks;
  stretch = {unit, start < begin ? begin - start : 0, number == 0 ? in_top : chunks, chunks,
             number == 0 ? 0 : in_top + (number - 1) * chunks};
  return start + chunks > begin;
}

__device__ __forceinline__ std::uint32_t* handover_flag(const ForwardArguments& args, int gang, int column) {
  return reinterpret_cast<std::uint32_t*>(args.handover + 256) + (gang * most_groups + column / 16);
}
/// Of the 16 columns from `column` on.
template <int K> __device__ __forceinline__ float* handover_state(const ForwardArguments& args, int gang, int column) {
  float* states = reinterpret_cast<float*>(args.handover + handover_head_bytes);
  return states + static_cast<std::int64_t>(gang * (args.V / 16) + column / 16) * (16 * K);
}

/// Leaves S^T [16 columns, K] to the gang above.
template <int K>
__device__ __forceinline__ void hand_over(const float (&S)[K / 8][4], const ForwardArguments& args, int to, int column, unsigned lane) {
  float* place = handover_state<K>(args, to, column) + 4 * lane;
#pragma unroll
  for (int tile = 0; tile < K / 8; ++tile) {
    const std::uint32_t words[4] = {float_as_bits(S[tile][0]), float_as_bits(S[tile][1]), float_as_bits(S[tile][2]),
                                    float_as_bits(S[tile][3])};
    store_global(place + 128 * tile, words);
  }
  sync_warp();
  if (lane == 0) flag_set(handover_flag(args, to, column));
}

/// Waits for what the gang below leaves.
template <int K>
__device__ __forceinline__ void take_over(float (&S)[K / 8][4], const ForwardArguments& args, int gang, int column, unsigned lane) {
  if (lane == 0) flag_wait(handover_flag(args, gang, column));
  sync_warp();
  const float* place = handover_state<K>(args, gang, column) + 4 * lane;
#pragma unroll
  for (int tile = 0; tile < K / 8; ++tile) load_global_fresh(S[tile], place + 128 * tile);
}

} // namespace kdacheck::cuda
