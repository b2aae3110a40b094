// Chunkwise forward, tier `fast`: bf16 operands, everything else fp32.
//
// One persistent block per sequence and value head (cut along V where heads are few), warp-specialised: producer warps
// (chunk_producer.cuh) turn 16 tokens into a stage in shared memory, each warp a chunk of its own; consumer warps
// (chunk_consumer.cuh) carry 16 value columns of the state in registers through the stages. Every input is read once and
// every output written once per block: 1282 bytes per token and head at K = V = 128 (bf16 gate) when V is not cut.
//
// Story:
// 1. as above. Predicted: a consumer step is a chain of 8 + 1 + 1 dependent products and two conversions, about 600 cycles, a
//    producer chunk about 3000 instructions a warp, so that 4 producers give a chunk in 1250 cycles or more:
//    0.45 to 0.65 ms for 8192 tokens.

#include "chunk_launch.cuh"

namespace kdacheck::cuda {

cudaError_t launch_chunk_fast(ForwardArguments args, cudaStream_t stream, ChunkShape wanted) {
  return launch_chunk_any<1>(args, stream, wanted);
}

} // namespace kdacheck::cuda
