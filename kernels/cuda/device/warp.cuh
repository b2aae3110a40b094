#pragma once
// The machine as the kernels see it: warp_device.cuh under nvcc; on a host, tests/simt.hpp gives the same names, so that
// the kernels run in the project's tests without a GPU.

#include <cstdint>

namespace kdacheck::cuda {

/// Byte address in shared memory.
using Address = std::uint32_t;

/// Two neighbouring channels of one token.
struct Pair {
  float x, y;
};

} // namespace kdacheck::cuda

#if defined(__CUDACC__)
#include "warp_device.cuh"
#else
#include "../tests/simt.hpp"
#endif

namespace kdacheck::cuda {

/// Arrivals of a warp at a barrier. After sync_warp() one lane speaks for what all lanes have done; of that racecheck knows nothing, it
/// takes an arrival for the lane's own, so that for it (KDACHECK_EVERY_LANE_ARRIVES) every lane arrives.
#ifdef KDACHECK_EVERY_LANE_ARRIVES
inline constexpr unsigned warp_arrivals = 32;
#else
inline constexpr unsigned warp_arrivals = 1;
#endif
__device__ __forceinline__ bool speaks(unsigned lane) { return lane < warp_arrivals; }

/// Neither infinite nor NaN.
__device__ __forceinline__ bool is_finite(float x) { return fabsf(x) <= 3.402823466e38f; }

} // namespace kdacheck::cuda
