// Chunkwise forward, tier `fast`: bf16 operands, everything else fp32.
//
// One persistent block per sequence and value head (cut along V where heads are few), warp-specialised: producer warps
// (chunk_producer.cuh) turn 16 tokens into a stage in shared memory, each warp a chunk of its own; consumer warps
// (chunk_consumer.cuh) carry 16 value columns of the state in registers through the stages. Every input is read once and
// every output written once per block: 1282 bytes per token and head at K = V = 128 (bf16 gate) when V is not cut.
//
// Story (H100, K = V = 128, ms for T 8192 with 96 / 32 / 4 heads, graph replay; cycles are per chunk of 16 tokens):
// 1. As above, V cut over blocks that each prepare all chunks anew. Predicted 0.45 to 0.65. Measured 1.60 / 0.86 / 0.88: a
//    producer takes 22,000 cycles, five per instruction; a consumer works 2,100 of the 5,500 that it gets.
// 2. Norms from 16-byte reads by two lanes a row, rows fetched late, addresses worked out anew instead of spilled, beta
//    through shared memory. Predicted -25 % of a producer's time. Measured 1.39 at 96 heads.
// 3. Two sets of score operands, so that one level's products run while the next is written. Measured 1.19 / 0.83 / 0.50.
//    16 warps at 128 registers instead of 12 at 168: slower (1.32 to 1.67), the schedulers are loaded unevenly.
// 4. Blocks of a cluster share what they prepare (bulk copies between shared memories). Predicted 0.30 at 4 heads. The
//    arrival at a remote barrier with cluster scope fenced all memory, 40 % of a consumer's time; without: 0.29 at 4 heads.
// 5. Tried and dropped: rows by bulk copies (issued lane by lane: 12 % of a producer's time), norms as diagonals on tensor
//    cores (longer chain than 525 plain instructions), all operands of a level loaded ahead (spills): 1.24 to 1.36.
// 6. Units cut so that the launches that follow one another take the least time: 96 = 66 on two multiprocessors each, the rest
//    on four. Predicted 0.95. Measured 1.06 / 0.57 / 0.28; 0.31 for B 8, T 1024, H 32; 0.050 for B 1, T 512, H 32.
// 7. Rows past the end of a sequence are not addressed anew: fewer instructions for a copy. Measured 1.03 at 96 heads.
// 8. Tried and dropped: a launch that begins while the one before leaves its multiprocessors. Predicted 1.01. Measured 1.05.
// On an H200 from here on (the same arithmetic, 1.81 GHz under ncu):
// 9. What is not finite is kept from earlier tokens of its chunk: a vote in each consumer. Predicted: nothing measurable. 258 instructions
//    for a chunk in place of 248.
// 10. Chunks of all heads dealt out evenly to what runs at once, states handed over (chunk_shifts.cuh), instead of launches that follow
//    one another: 96 heads on 66 pairs of multiprocessors. Predicted 0.91 at 96 heads. Measured 0.940 where the same kernel in two launches
//    takes 1.149; 0.546 for 0.615 at 32 heads; 0.355 for 0.334 at B 8, T 1024, so not done where units are short. The same bits.
// 11. In that form a consumer worked out anew in every chunk which places its lanes address, 306 instructions in place of 247: they are now
//    made known as late as the chunks begin. Predicted 0.92 and 0.28 at 96 and 4 heads. Measured 0.953, 0.531, 0.358, where the version
//    before 9 takes 1.034, 0.569, 0.282 on the same machine: few heads pay for code that they do not need.
// 12. Two kernels, one for a unit a gang. Predicted 0.95, 0.53, 0.28. Measured: reports/cuda/evidence.md.
// 13. Tried and dropped: 5, 6 or 8 producers a multiprocessor with 6 or 8 places in the ring, two multiprocessors a head, 66 heads: 0.74,
//    0.92, 0.83 where 4 take 0.65.
// 14. Outputs stored 16 bytes at once, as the general rule does. Predicted: nothing measurable. Measured in one run, before and after:
// 0.987
//    and 0.946 at 96 heads, 0.553 and 0.550 at 32, 0.306 and 0.288 at 4.
// 15. A chunk's decay below 2^-126 is kept, four exponentials a lane and chunk: 9,977 instructions in place of 9,966, dealt out 10,220 in
//    place of 10,217; 16 bytes of stack in place of 32, 56 in place of 72. Predicted: nothing measurable; not measured.
// 16. Scores as one tile (chunk_tile.cuh) in place of four levels, since by ncu producers are waited for (31 % of a consumer's time).
//    Predicted 26 % fewer instructions of a producer, 0.75. Measured 0.921, 0.589, 0.301: 6,009 instructions a chunk for 7,365, but the
//    compiler, short of registers, now put every load of an operand right before its product, 32 % of a consumer's time.
// 17. Operands asked for a step or two ahead; swizzled places by one exclusive or; values, outputs and the state addressed by steps (64
//    addresses of the state had been kept, and spilled); where 8 warps do, a kernel of 255 registers, nothing spilled; as many stages as
//    fit, ten. Predicted 0.75. Measured 0.739, 0.388, 0.266; 0.284 for B 8, T 1024, H 32; 0.041 for B 1, T 512, H 32.
// 18. Decays multiplied between the products with S, not before those that update it. Predicted 0.70. Measured 0.726 for 0.733.
// 19. Tried and dropped: 3, 5, 6 producers a multiprocessor: 0.80, 0.93, 1.12 where 4 take 0.735.
// 20. Norms in a loop, not in straight lines: 776 instructions of 9,472 less, since by ncu a quarter of what producers wait for is code.
//    Measured 0.656 for 0.731, 0.368 for 0.389 at 32 heads.
// 21. Where chunks are dealt out, two consumers on each of two schedulers, two producers on each of the others, so that what a scheduler
//    fetches is of one kind. Measured 0.707 without 20, 0.618 with it: consumers wait for code no more, for the tensor cores 14 % of their
//    time. (The accurate tier's, which multiply more, are slower so: 1.43 for 1.06 after its change 10.)
// 22. Tried and dropped: passes token by token with sums alone in registers, as the accurate tier's (chunk_stream.cuh): 0.78. Norms one
//    step at a time and products two: 0.653.
// What limits it on an H200, by ncu after 21: a producer issues an instruction in 4.0 cycles, of which it waits for results 28 %, for
// shared memory 13 %, for code 9 %; consumers wait for producers 7 %, for the tensor cores 14 %. 255 registers, 0 bytes spilled; 168 where
// a block has 12 warps.

#include "chunk_launch.cuh"

namespace kdacheck::cuda {

cudaError_t launch_chunk_fast(ForwardArguments args, cudaStream_t stream, ChunkShape wanted) {
  return launch_chunk_any<1>(args, stream, wanted);
}

} // namespace kdacheck::cuda
