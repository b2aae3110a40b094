// Chunkwise forward, tier `accurate`: the structure of chunk_fast.cu with every operand as the sum of two bf16 terms.
//
// x = hi + lo keeps 16 bits; products hi*hi + hi*lo + lo*hi are three bf16 products where tf32, with 11 bits, would cost two,
// take the same shared memory, and lie in registers as the fast tier's operands do.
//
// Story:
// 1. as above. Predicted: error of o below 2e-3 in every regime, that is the rounding of the output; time 1.5 to 2 times
//    the fast tier's.

#include "chunk_launch.cuh"

namespace kdacheck::cuda {

cudaError_t launch_chunk_accurate(ForwardArguments args, cudaStream_t stream, ChunkShape wanted) {
  return launch_chunk_any<2>(args, stream, wanted);
}

} // namespace kdacheck::cuda
