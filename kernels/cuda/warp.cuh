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
#include "tests/simt.hpp"
#endif

namespace kdacheck::cuda {

/// Neither infinite nor NaN.
__device__ __forceinline__ bool is_finite(float x) { return fabsf(x) <= 3.402823466e38f; }

} // namespace kdacheck::cuda
