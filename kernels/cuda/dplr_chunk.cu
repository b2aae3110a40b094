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
// What limits it now: of 5.9 cycles between a warp's instructions 1.3 are fixed latencies, 1.1 waiting for instructions, 1.5 for memory or
// a barrier (ncu, after 2.); 96 units on 66 pairs of multiprocessors take two rounds where 1.45 would do: 0.98 if all worked to the end.
// 168 registers, 108 bytes spilled (none of it in the loops over tokens), 226 KB shared memory: 6 stages of 18.5 KB, 4 benches of 24.8.

#include "chunk_launch.cuh"
#include "dplr_producer.cuh"

namespace kdacheck::cuda {
namespace {

template <int K, bool half_precision>
__global__ void __launch_bounds__(32 * most_warps, 1) general_forward(const __grid_constant__ ForwardArguments args) {
  general_forward_block<K, half_precision>(args);
}

/// As many producers as shared memory holds beside more stages than there are producers; stages are a multiple of the blocks that share
/// them. 0 if nothing fits.
template <int K> int fill_general(ForwardArguments& args, ChunkShape wanted, int shared_limit) {
  const int gate_bytes = args.gate_format == Stored::fp32 ? 4 : 2;
  args.staged = args.sharing > 2; // here: the triangle is solved before a place in the ring is taken, not in it
  args.consumer_warps = args.V / 16 / args.slices;
  const int most = std::min(8, most_warps - args.consumer_warps);
  for (int producers = wanted.producer_warps ? wanted.producer_warps : most; producers > 0; --producers) {
    const int room = shared_limit - general_shared_bytes<K>(0, producers, args.consumer_warps, gate_bytes);
    int stages = std::min(wanted.stages ? wanted.stages : most_stages, room / GeneralStage<K>::bytes);
    stages = stages / args.sharing * args.sharing;
    args.producer_warps = producers;
    args.stages = stages;
    if (stages > producers || (stages >= 2 && (wanted.producer_warps || producers == 1)))
      return general_shared_bytes<K>(stages, producers, args.consumer_warps, gate_bytes);
    if (wanted.producer_warps) return 0;
  }
  return 0;
}

/// Measured on an H200 for K = V = 128 and 8192 tokens, in ms: a unit (sequence, head) on 1, 2, 4, 8 multiprocessors.
double general_time(int sharing) { return sharing >= 8 ? 0.86 : sharing >= 4 ? 0.53 : sharing >= 2 ? 0.67 : 1.40; }

/// One launch, cut so that its rounds take the least time: the value columns of a unit are spread over a cluster of blocks that share
/// their chunks. (Rounds of one launch overlap; launches with different cuts, one after the other, took longer.)
template <int K, bool half_precision> cudaError_t launch(ForwardArguments args, cudaStream_t stream, ChunkShape wanted) {
  const auto kernel = general_forward<K, half_precision>;
  int device = 0, shared_limit = 0;
  if (const cudaError_t error = cudaGetDevice(&device); error != cudaSuccess) return error;
  if (const cudaError_t error = cudaDeviceGetAttribute(&shared_limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
      error != cudaSuccess)
    return error;
  if (const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_limit);
      error != cudaSuccess)
    return error;
  const std::int64_t units = args.N * args.HV;
  const int groups = args.V / 16;
  int fewest = (groups + 7) / 8; // at most 8 consumer warps a block
  while (groups % fewest != 0) ++fewest;
  Cut<ForwardArguments> best; // one cluster of one block for each slice always works
  for (int slices = std::max(8, fewest); slices >= fewest; --slices)
    for (int sharing = std::min(8, slices); sharing >= 1; --sharing) {
      const bool last = slices == fewest && sharing == 1;
      if (groups % slices != 0 || slices % sharing != 0 || (!wanted.sharing && sharing != slices && !last)) continue;
      if ((wanted.slices && slices != wanted.slices) || (wanted.sharing && sharing != wanted.sharing)) continue;
      args.slices = slices;
      args.sharing = sharing;
      const int shared = fill_general<K>(args, wanted, shared_limit);
      if (shared == 0) continue;
      int clusters = 0;
      if (const cudaError_t error = launch_clusters(kernel, args, 1, shared, stream, &clusters); error != cudaSuccess) return error;
      const std::int64_t at_once = clusters * sharing / slices;
      if (at_once == 0) continue;
      const double time = general_time(sharing) * static_cast<double>((units + at_once - 1) / at_once);
      if (best.at_once == 0 || time < best.time) best = {args, shared, at_once, time};
    }
  if (best.at_once == 0) return cudaErrorInvalidConfiguration;
  return launch_clusters(kernel, best.arguments, units, best.shared, stream, nullptr);
}

} // namespace

cudaError_t launch_general_fast(ForwardArguments args, cudaStream_t stream, ChunkShape wanted) {
  const bool half = args.qkv_format == Stored::fp16;
  if (args.K == 64) return half ? launch<64, true>(args, stream, wanted) : launch<64, false>(args, stream, wanted);
  return half ? launch<128, true>(args, stream, wanted) : launch<128, false>(args, stream, wanted);
}

} // namespace kdacheck::cuda
