#pragma once

#include <cstddef>
#include <cuda_runtime_api.h>

namespace kdacheck::cuda {

/// Copies `bytes`, a multiple of 16, between two places of device memory that are 16-byte aligned and do not overlap.
cudaError_t launch_copy(void* to, const void* from, std::size_t bytes, cudaStream_t);

/// An empty kernel: what a launch alone takes.
cudaError_t launch_nothing(cudaStream_t);

} // namespace kdacheck::cuda
