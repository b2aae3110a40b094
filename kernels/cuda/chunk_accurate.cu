// Chunkwise forward, tier `accurate`: the structure of chunk_fast.cu with every operand as the sum of two bf16 terms.
//
// x = hi + lo keeps 16 bits; products hi*hi + hi*lo + lo*hi are three bf16 products where tf32, with 11 bits, would cost two,
// take the same shared memory, and lie in registers as the fast tier's operands do.
//
// Story (as chunk_fast.cu):
// 1. As above. Predicted: error of o below 2e-3 in every regime, that is the rounding of the output, and 1.5 to 2 times the
//    fast tier's time. Measured: 1.7e-3 everywhere (2.1e-4 for fp16 outputs), state 1e-5; 2.58 / 2.43 / 1.86 ms.
// 2. Changes 2 to 6 of the fast tier. Measured 1.95 / 1.46 / 0.84. The target, 1.30 at 96 heads, is missed by half: stages
//    take 27 KB, so that only four fit, and a producer issues 1.6 times as many instructions.

#include "chunk_launch.cuh"

namespace kdacheck::cuda {

cudaError_t launch_chunk_accurate(ForwardArguments args, cudaStream_t stream, ChunkShape wanted) {
  return launch_chunk_any<2>(args, stream, wanted);
}

} // namespace kdacheck::cuda
