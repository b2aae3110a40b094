#pragma once
// Choice of blocks and warps for the chunk kernels, and their launch.

#include "chunk_producer.cuh"
#include "launch.hpp"

#include <algorithm>

namespace kdacheck::cuda {

inline constexpr int most_warps = 12; ///< 168 registers a thread

template <int K, int pieces, bool half_precision>
__global__ void __launch_bounds__(32 * most_warps, 1) chunk_forward(const __grid_constant__ ForwardArguments args) {
  chunk_forward_block<K, pieces, half_precision>(args);
}

/// Few heads: the value columns are spread over blocks until the device is full, each block preparing the chunks anew. As
/// many producers as registers and shared memory hold, with at least three stages for four of them.
template <int K, int pieces>
ChunkShape choose_shape(const ForwardArguments& args, ChunkShape wanted, int multiprocessors, int shared_limit) {
  const int groups = args.V / 16;
  ChunkShape shape = wanted;
  if (shape.slices == 0)
    for (int slices = 1; slices <= groups; ++slices)
      if (groups % slices == 0 && groups / slices <= 8 && (shape.slices == 0 || args.N * args.HV * slices <= multiprocessors))
        shape.slices = slices;
  const int consumers = groups / shape.slices, gate_bytes = args.gate_format == Stored::fp32 ? 4 : 2;
  const auto stages_beside = [&](int producers) {
    return (shared_limit - chunk_shared_bytes<K, pieces>(0, producers, consumers, gate_bytes)) / StageLayout<K, pieces>::bytes;
  };
  if (shape.producer_warps == 0)
    for (shape.producer_warps = std::min(8, most_warps - consumers); shape.producer_warps > 1; --shape.producer_warps)
      if (4 * stages_beside(shape.producer_warps) >= 3 * shape.producer_warps) break;
  if (shape.stages == 0) shape.stages = std::min(8, stages_beside(shape.producer_warps));
  return shape;
}

template <int K, int pieces, bool half_precision> cudaError_t launch_chunk(ForwardArguments args, cudaStream_t stream, ChunkShape wanted) {
  int device = 0, multiprocessors = 0, shared_limit = 0;
  if (const cudaError_t error = cudaGetDevice(&device); error != cudaSuccess) return error;
  if (const cudaError_t error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device); error != cudaSuccess)
    return error;
  if (const cudaError_t error = cudaDeviceGetAttribute(&shared_limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
      error != cudaSuccess)
    return error;
  const ChunkShape shape = choose_shape<K, pieces>(args, wanted, multiprocessors, shared_limit);
  args.slices = shape.slices;
  args.producer_warps = shape.producer_warps;
  args.stages = shape.stages;
  args.consumer_warps = args.V / 16 / shape.slices;
  const int gate_bytes = args.gate_format == Stored::fp32 ? 4 : 2;
  const int shared = chunk_shared_bytes<K, pieces>(shape.stages, shape.producer_warps, args.consumer_warps, gate_bytes);
  const auto kernel = chunk_forward<K, pieces, half_precision>;
  if (const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared); error != cudaSuccess)
    return error;
  const auto blocks = static_cast<unsigned>(args.N * args.HV * args.slices);
  kernel<<<blocks, 32 * static_cast<unsigned>(args.consumer_warps + args.producer_warps), static_cast<std::size_t>(shared), stream>>>(args);
  return cudaGetLastError();
}

template <int pieces> cudaError_t launch_chunk_any(const ForwardArguments& args, cudaStream_t stream, ChunkShape wanted) {
  const bool half = args.qkv_format == Stored::fp16;
  if (args.K == 64)
    return half ? launch_chunk<64, pieces, true>(args, stream, wanted) : launch_chunk<64, pieces, false>(args, stream, wanted);
  return half ? launch_chunk<128, pieces, true>(args, stream, wanted) : launch_chunk<128, pieces, false>(args, stream, wanted);
}

} // namespace kdacheck::cuda
