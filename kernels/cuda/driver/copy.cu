// What a copy by a kernel reaches: a memory copy in a graph may go through a copy engine, which is slower.

#include "copy.hpp"

namespace kdacheck::cuda {
namespace {

constexpr int threads = 512, at_once = 4; // 16-byte words in flight per thread

__global__ void __launch_bounds__(threads) copy_words(uint4* to, const uint4* from, std::size_t words) {
  const std::size_t first = static_cast<std::size_t>(blockIdx.x) * (threads * at_once) + threadIdx.x;
  uint4 word[at_once];
#pragma unroll
  for (int i = 0; i < at_once; ++i)
    if (first + i * threads < words) word[i] = from[first + i * threads];
#pragma unroll
  for (int i = 0; i < at_once; ++i)
    if (first + i * threads < words) to[first + i * threads] = word[i];
}

__global__ void nothing() {}

} // namespace

cudaError_t launch_nothing(cudaStream_t stream) {
  nothing<<<1, 32, 0, stream>>>();
  return cudaGetLastError();
}

cudaError_t launch_copy(void* to, const void* from, std::size_t bytes, cudaStream_t stream) {
  const std::size_t words = bytes / sizeof(uint4), per_block = std::size_t{threads} * at_once;
  copy_words<<<static_cast<unsigned>((words + per_block - 1) / per_block), threads, 0, stream>>>(static_cast<uint4*>(to),
                                                                                                 static_cast<const uint4*>(from), words);
  return cudaGetLastError();
}

} // namespace kdacheck::cuda
