#pragma once
// Kernel launches; arguments are already checked (check.hpp).

#include "arguments.hpp"

#include <cuda_runtime_api.h>

namespace kdacheck::cuda {

/// How a chunk kernel is cut into blocks and warps. Zeros: chosen from the problem and the device.
struct ChunkShape {
  int slices = 0, producer_warps = 0, stages = 0, sharing = 0;
};

cudaError_t launch_recurrence(const ForwardArguments&, cudaStream_t);
cudaError_t launch_chunk_fast(ForwardArguments, cudaStream_t, ChunkShape = {});
cudaError_t launch_chunk_accurate(ForwardArguments, cudaStream_t, ChunkShape = {});
/// Of both: keys of neither 64 nor 128 channels.
cudaError_t launch_chunk_narrow_fast(const ForwardArguments&, cudaStream_t, ChunkShape = {});
cudaError_t launch_chunk_narrow_accurate(const ForwardArguments&, cudaStream_t, ChunkShape = {});
/// The general rule (DPLR).
cudaError_t launch_general_fast(ForwardArguments, cudaStream_t, ChunkShape = {});
cudaError_t launch_recurrence_backward(const BackwardArguments&, cudaStream_t);
cudaError_t launch_backward_fast(const BackwardArguments&, cudaStream_t);
cudaError_t launch_backward_accurate(const BackwardArguments&, cudaStream_t);
cudaError_t launch_gates(const GateArguments&, cudaStream_t);
/// N is the number of slots, final_state their memory.
cudaError_t launch_decode(const ForwardArguments&, std::int64_t sequences, cudaStream_t);

} // namespace kdacheck::cuda
