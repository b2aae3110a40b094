// Chunkwise forward of the general rule S_t = (Diag(alpha_t) - a_t b_t^T) S_{t-1} + k_t v_t^T, tier `fast`: bf16 operands, the rest fp32.
//
// The structure of chunk_fast.cu: producer warps (dplr_producer.cuh) turn 16 tokens into a stage, consumer warps (dplr_consumer.cuh)
// carry 16 value columns of the state in registers through the stages; rings, barriers and clusters are those of KDA. New is how scores
// are made (dplr_scores.cuh): the rows that multiply the state serve the scores too, against columns that grow, so that a chunk takes six
// operands a channel and token where KDA's levels, with a and b, would take twelve; what decays too far for that takes the levels. Every
// input is read once and every output written once: 1792 bytes per token and head at K = V = 128 when V is not cut.
//
// Story (H200, K = V = 128, gate, l2norm inside, ms for T 8192 with 96 heads, graph replay; a unit on one / on two multiprocessors):
// 1. As above. Predicted 1.5 to 1.7: as many instructions as KDA. Measured 1.58 / 1.57; 15,000 to 17,000 cycles a producer's chunk.
// 2. Four tokens are loaded while the four before are worked on (stores had kept later loads waiting), copies to the ring in batches,
//    what only steep decay needs in memory instead of spilled registers; all operands of the state on their way before W is known;
//    outputs stored 16 bytes at once (the compiler had made four stores). Predicted 0.9 to 1.0. Measured 1.36 / 1.38.
// 3. Loops over tokens not unrolled: 400 instructions instead of 834, the gate's 100 instead of 300. Predicted -20 %, what waiting for
//    instructions takes. Measured 1.43 / 1.34: nothing.
// 4. Tried and dropped: 16 warps at 128 registers (spills: 1.80 / 3.06); the triangle solved before a place in the ring is taken also
//    where few share (1.45 / 1.37); two launches, the rest of the units on four multiprocessors each (1.40).
// 5. Chunks dealt out evenly, as KDA's are (chunk_shifts.cuh); blocks, rings and the consumer's loop are now KDA's. Predicted 0.98. With
//    producer and consumer in one function the compiler spilled 1,656 bytes. The producer a function of its own: 1.32 for 1.345, 37 % of
//    its waiting for arguments read through memory (ncu). The consumer a function of its own instead: 1.196, and 0.599 for 0.693 at 32
//    heads.
// What limited it after 2.: of 5.9 cycles between a warp's instructions 1.3 are fixed latencies, 1.1 waiting for instructions, 1.5 for
// memory or a barrier (ncu). Dealt out, a chunk takes a sixth more than where a gang has one unit: why, has not been measured. 168
// registers, 116 bytes spilled (144, and 16 in the consumer, where chunks are dealt out), 222 KB shared memory: 6 stages of 18.5 KB, 4
// benches of 24.8.

#include "../chunk/chunk_launch.cuh"
#include "dplr_producer.cuh"

namespace kdacheck::cuda {
namespace {

template <int K, bool half_precision, bool dealt>
__global__ void __launch_bounds__(32 * most_warps, 1) general_forward(const __grid_constant__ ForwardArguments args) {
  general_forward_block<K, half_precision, dealt>(args);
}

template <int K> struct GeneralCut {
  static constexpr int dealt_warps = most_warps;
  static constexpr bool one_launch = true; // launches with different cuts, one after the other, took longer than rounds of one launch
  /// Measured on an H200 for K = V = 128 and 8192 tokens, in ms.
  static double time(int sharing) { return sharing >= 8 ? 0.86 : sharing >= 4 ? 0.53 : sharing >= 2 ? 0.67 : 1.40; }
  /// As many producers as shared memory holds beside more stages than there are producers; stages are a multiple of the blocks that share
  /// them. Where args.staged, the triangle is solved before a place in the ring is taken, not in it.
  static int fill(ForwardArguments& args, ChunkShape wanted, int shared_limit) {
    const int gate_bytes = args.gate_format == Stored::fp32 ? 4 : 2, most = std::min(8, most_warps - args.consumer_warps);
    for (int producers = wanted.producer_warps ? wanted.producer_warps : most; producers > 0; --producers) {
      const int room = shared_limit - general_shared_bytes<K>(0, producers, args.consumer_warps, gate_bytes);
      int stages = std::min(wanted.stages ? wanted.stages : 8, room / GeneralStage<K>::bytes);
      stages = stages / args.sharing * args.sharing;
      args.producer_warps = producers;
      args.stages = stages;
      if (stages > producers || (stages >= 2 && (wanted.producer_warps || producers == 1)))
        return general_shared_bytes<K>(stages, producers, args.consumer_warps, gate_bytes);
      if (wanted.producer_warps) return 0;
    }
    return 0;
  }
};

template <int K, bool half_precision> cudaError_t launch(const ForwardArguments& args, cudaStream_t stream, ChunkShape wanted) {
  return launch_cut<GeneralCut<K>>(general_forward<K, half_precision, false>, args, stream, wanted,
                                   general_forward<K, half_precision, true>);
}

} // namespace

cudaError_t launch_general_fast(ForwardArguments args, cudaStream_t stream, ChunkShape wanted) {
  const bool half = args.qkv_format == Stored::fp16;
  if (args.K == 64) return half ? launch<64, true>(args, stream, wanted) : launch<64, false>(args, stream, wanted);
  return half ? launch<128, true>(args, stream, wanted) : launch<128, false>(args, stream, wanted);
}

} // namespace kdacheck::cuda
