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
// 3. Small matrices over operands that are no longer needed, so that beside six stages three producers fit on each of two
//    multiprocessors where two did, and nothing is copied into the ring. Predicted 0.95 for a head on two, and 1.4 for 96 heads
//    dealt out. Measured on an H200 1.62 for 66 heads at once (1.70 with two producers): dealing out would take 2.4, and is not done.
// What limits it there (ncu, 66 heads on two each): a quarter of the issue slots are used; consumers spend 20 % of their time waiting for
// stages and half of the rest on products that wait for one another, three to a sum where the fast tier has one.

#include "chunk_launch.cuh"

namespace kdacheck::cuda {

cudaError_t launch_chunk_accurate(ForwardArguments args, cudaStream_t stream, ChunkShape wanted) {
  return launch_chunk_any<2>(args, stream, wanted);
}

} // namespace kdacheck::cuda
