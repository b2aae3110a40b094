// Chunkwise forward of the general rule S_t = (Diag(alpha_t) - a_t b_t^T) S_{t-1} + k_t v_t^T, tier `fast`: bf16 operands, the rest fp32.
//
// The structure of chunk_fast.cu: producer warps (dplr_producer.cuh) turn 16 tokens into a stage, consumer warps (dplr_consumer.cuh)
// carry 16 value columns of the state in registers through the stages; ring, clusters and launches are shared with KDA. Every input is
// read once and every output written once: 1794 bytes per token and head at K = V = 128 when V is not cut.

#include "chunk_launch.cuh"
#include "dplr_producer.cuh"

namespace kdacheck::cuda {
namespace {

template <int K, bool half_precision>
__global__ void __launch_bounds__(32 * most_warps, 1) general_forward(const __grid_constant__ ForwardArguments args) {
  general_forward_block<K, half_precision>(args);
}

/// As many producers as shared memory holds beside at least two stages, a multiple of the blocks that share them; in turns of the four
/// schedulers where that costs no more than one. 0 if nothing fits.
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
    if (stages >= 2) return general_shared_bytes<K>(stages, producers, args.consumer_warps, gate_bytes);
    if (wanted.producer_warps) return 0;
  }
  return 0;
}

/// A unit (sequence, head) on 1, 2, 4, 8 multiprocessors.
double general_time(int sharing) { return sharing >= 8 ? 0.40 : sharing >= 4 ? 0.50 : sharing >= 2 ? 0.80 : 1.50; }

/// Cuts as launch_cut of chunk_launch.cuh does: one block a unit where there are more than two for each multiprocessor, otherwise the
/// launches, one after the other, that together take the least time.
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
  const int groups = args.V / 16;
  int fewest = (groups + 7) / 8; // at most 8 consumer warps a block
  while (groups % fewest != 0) ++fewest;
  std::vector<Cut<ForwardArguments>> cuts; // the last one always works: one cluster of one block for each slice
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
      if (clusters * sharing >= slices) cuts.push_back({args, shared, clusters * sharing / slices, general_time(sharing)});
    }
  if (cuts.empty()) return cudaErrorInvalidConfiguration;
  const std::int64_t units = args.N * args.HV;
  constexpr int most_waves = 3;
  for (std::int64_t done = 0; done < units;) {
    std::size_t choice = cuts.size() - 1;
    const bool many = units - done > 2 * cuts[choice].at_once;
    if (!many && !wanted.slices) {
      const double alone = cuts[choice].time * std::ceil(static_cast<double>(units - done) / static_cast<double>(cuts[choice].at_once));
      std::size_t first = choice;
      if (plan(cuts, units - done, most_waves, first) < 0.95 * alone) choice = first; // launches that follow one another cost too
    }
    Cut<ForwardArguments>& cut = cuts[choice];
    const std::int64_t now = many || wanted.slices || choice == cuts.size() - 1 ? units - done : std::min(units - done, cut.at_once);
    cut.arguments.first_unit = done;
    if (const cudaError_t error = launch_clusters(kernel, cut.arguments, now, cut.shared, stream, nullptr); error != cudaSuccess)
      return error;
    done += now;
  }
  return cudaSuccess;
}

} // namespace

cudaError_t launch_general_fast(ForwardArguments args, cudaStream_t stream, ChunkShape wanted) {
  const bool half = args.qkv_format == Stored::fp16;
  if (args.K == 64) return half ? launch<64, true>(args, stream, wanted) : launch<64, false>(args, stream, wanted);
  return half ? launch<128, true>(args, stream, wanted) : launch<128, false>(args, stream, wanted);
}

} // namespace kdacheck::cuda
