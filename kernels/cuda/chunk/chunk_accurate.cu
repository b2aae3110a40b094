// Chunkwise forward, tier `accurate`: the structure of chunk_fast.cu with operands of 11 bits or more (chunk_mixed.cuh).
//
// kd, qd, T and Aqk are fp16, so that stages cost what the fast tier's do; operands of scores, states, residuals and updates enter as tf32,
// and only kr, whose roundings pile up in a state that is not overwritten, has two bf16 terms. What this gives up: keys and queries,
// decayed, below 2^-24 are lost, so that a memory that is faint against nothing at all is not right to 11 bits, and the contract says
// operands=fp16.
//
// Story (as chunk_fast.cu):
// 1. Every operand the sum of two bf16 terms. Predicted: error of o below 2e-3 in every regime, that is the rounding of the output, and 1.5
//    to 2 times the fast tier's time. Measured: 1.7e-3 everywhere (2.1e-4 for fp16 outputs), state 1e-5; 2.58 / 2.43 / 1.86 ms.
// 2. Changes 2 to 6 of the fast tier. Measured 1.95 / 1.46 / 0.84. The target, 1.30 at 96 heads, is missed by half: stages
//    take 27 KB, so that only four fit, and a producer issues 1.6 times as many instructions.
// 3. Small matrices over operands that are no longer needed, so that beside six stages three producers fit on each of two
//    multiprocessors where two did, and nothing is copied into the ring. Predicted 0.95 for a head on two, and 1.4 for 96 heads
//    dealt out. Measured on an H200 1.62 for 66 heads at once (1.70 with two producers): dealing out would take 2.4, and is not done.
// 4. Mixed operands, as above. Predicted 0.70 to 0.75 for 66 heads, 1.05 to 1.1 for 96 dealt out. Measured 3.37 dealt out: a consumer's 824
//    instructions for a chunk do not fit the scheduler's instruction cache beside the producers' (72 % of its samples wait for
//    instructions, ncu). With eight consumers a multiprocessor, which share what is fetched, 0.36 at B 8, T 1024 for 0.56.
// 5. Left operands are rounded in one instruction, not three: 664. A head on one multiprocessor where 96 are at once. Predicted 1.15.
//    Measured 1.27 for 2.04 at 96 heads. Error of o 1.7e-3 everywhere (4e-4 to 5e-4 for fp16 outputs), state 4e-4.
// 6. Three producers on each of two multiprocessors, which take 0.84 for 66 heads where four take 1.41. Predicted 0.84 for 32 heads, which
//    took 1.25. Measured 0.882, and 1.267 / 0.597 at 96 / 4 heads; 0.335 at B 8, T 1024, H 32, 0.071 at T 512.
// 7. Changes 17 and 18 of the fast tier. Predicted: nothing. Measured 1.36, 0.82, 0.49 at 96, 32, 4 heads: on one multiprocessor a head,
//    at 168 registers, producers wait 14 % of their time for what they had to spill. Levels in one set of operand rows, not in two (benches
//    3 KB smaller), and 96 heads dealt out over pairs again, at 255 registers with three producers each: 1.304; with four 2.8, as in 4.
// 8. Scores as one tile in tf32 (chunk_tile.cuh), rows and columns 12 KB. Predicted 1.05. Measured 1.29 for 1.29, 0.60 for 0.50 at 4 heads:
//    the bench takes places of the ring; by ncu producers wait for code 40 % of their time, consumers 13 %, for 47 KB are gone through.
// 9. That pass token by token in loops (chunk_stream.cuh). Measured 1.21: producers wait for code 5 %, consumers for producers 43 %.
// 10. Rows of the tile over raw rows and over kr, so that a bench takes 17 KB, and with that a fourth producer. Measured 1.056.
// 11. Of eight tokens everything loaded before anything is stored. Predicted a producer's time less 10 to 15 %. Measured 1.06 for 1.19 with
//    three producers, but 1.20 with four: 36 KB of code, for which consumers wait 31 %. Of four tokens, which is less code: 0.919 with four
//    producers; 0.629, 0.451 at 32, 4 heads; 0.371 at B 8, T 1024, H 32 (12 warps; 0.356 before), 0.055 at T 512.
// 255 registers, 0 bytes spilled (168 where a block has 12 warps); stages of 17.5 KB, eight of them beside four benches of 17 KB.

#include "chunk_launch.cuh"

namespace kdacheck::cuda {

cudaError_t launch_chunk_accurate(ForwardArguments args, cudaStream_t stream, ChunkShape wanted) {
  return launch_chunk_any<mixed_terms>(args, stream, wanted);
}

} // namespace kdacheck::cuda
