#pragma once
// Choice of blocks and warps for the chunk kernels, and their launch.

#include "../host/launch.hpp"
#include "chunk_producer.cuh"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace kdacheck::cuda {

/// Warps of a block, at 168 registers a thread: three for each scheduler. 16 warps at 128 registers were slower.
inline constexpr int most_warps = 12;
/// Warps of a block at 255 registers a thread.
inline constexpr int wide_warps = 8;
/// With more than 128 channels a consumer's state alone takes 128 registers: fewer warps, at 255.
constexpr __device__ __host__ int warps_of(int K) { return K > 128 ? 8 : most_warps; }

template <int K, int pieces, bool half_precision, bool dealt, bool wide, bool narrow = false>
__global__ void __launch_bounds__(32 * (wide ? wide_warps : warps_of(K)), 1) chunk_forward(const __grid_constant__ ForwardArguments args) {
  chunk_forward_block<K, pieces, half_precision, dealt, narrow>(args);
}

/// The cut of what a kernel is launched with.
inline ForwardArguments& cut_of(ForwardArguments& args) { return args; }
inline ForwardArguments& cut_of(SweepArguments& args) { return args.call; }

/// As many producers as shared memory holds beside the stages that keep them busy, spread evenly over the four schedulers
/// of the multiprocessor. Stages are a multiple of the blocks that share them. False if nothing fits.
template <int K, int pieces, Sweep sweep> bool fill_shape(ForwardArguments& args, ChunkShape wanted, int shared_limit) {
  const int gate_bytes = args.gate_format == Stored::fp32 ? 4 : 2;
  const int most = std::min(8, warps_of(K) - args.consumer_warps);
  const int room = shared_limit - chunk_shared_bytes<K, pieces, sweep>(0, 0, args.consumer_warps, gate_bytes, false);
  for (int producers = wanted.producer_warps ? wanted.producer_warps : most; producers > 0; --producers) {
    const int taken = chunk_shared_bytes<K, pieces, sweep>(0, producers, 0, gate_bytes, args.staged) - header_bytes;
    int stages = std::min(wanted.stages ? wanted.stages : most_stages, (room - taken) / StageLayout<K, pieces, sweep>::bytes);
    if (args.staged) stages = std::min(stages, std::max(4, args.sharing));
    stages = stages / args.sharing * args.sharing;
    args.producer_warps = producers;
    args.stages = stages;
    const bool supplied = args.staged || (args.sharing > 1 ? stages >= args.sharing * producers : 4 * stages >= 3 * producers);
    const bool even = producers % 4 == 0 || (args.consumer_warps + producers) % 4 == 0 || producers < 4;
    const bool enough = supplied && even;
    if (stages >= 2 && (wanted.producer_warps || enough)) return true;
    if (wanted.producer_warps) return false;
  }
  return false;
}

/// Launches `units` clusters of args.sharing blocks for each group of slices; with `at_once`, only asks how many clusters
/// run at once.
template <class Kernel, class Arguments>
cudaError_t launch_clusters(Kernel kernel, Arguments arguments, std::int64_t units, int shared, cudaStream_t stream, int* at_once) {
  const ForwardArguments& args = cut_of(arguments);
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(units * args.slices));
  config.blockDim = dim3(32 * static_cast<unsigned>(args.consumer_warps + args.producer_warps));
  config.dynamicSmemBytes = static_cast<std::size_t>(shared);
  config.stream = stream;
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim.x = static_cast<unsigned>(args.sharing);
  cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
  config.attrs = &cluster;
  config.numAttrs = 1;
  if (at_once != nullptr) return cudaOccupancyMaxActiveClusters(at_once, kernel, &config);
  return cudaLaunchKernelEx(&config, kernel, arguments);
}

/// One way to run a unit (sequence, head): its time relative to the others', and how many run at once.
template <class Arguments> struct Cut {
  Arguments arguments;
  int shared = 0;
  std::int64_t at_once = 0;
  double time = 0;
};

/// Measured on an H200 for V = 128 and 8192 tokens, in ms: a unit on 1, 2, 4, 8 multiprocessors, as many as run at once.
template <int pieces> double unit_time(int sharing) {
  if (pieces == 1) return sharing >= 8 ? 0.265 : sharing >= 4 ? 0.37 : sharing >= 2 ? 0.42 : 1.14;
  if (pieces == mixed_terms) return sharing >= 8 ? 0.455 : sharing >= 4 ? 0.57 : sharing >= 2 ? 0.63 : 1.42;
  return sharing >= 8 ? 0.89 : sharing >= 4 ? 1.50 : sharing >= 2 ? 1.55 : 2.20;
}

/// How KDA's chunk kernels are cut.
template <int K, int pieces, Sweep sweep> struct ChunkCut {
  static constexpr bool one_launch = false; ///< launches with other cuts may follow
  static constexpr int dealt_warps = wide_warps;
  static double time(int sharing) { return unit_time<pieces>(sharing); }
  /// Fills in producers and stages; bytes of shared memory, 0 if nothing fits.
  static int fill(ForwardArguments& args, ChunkShape wanted, int shared_limit) {
    if (!fill_shape<K, pieces, sweep>(args, wanted, shared_limit)) return 0;
    return chunk_shared_bytes<K, pieces, sweep>(args.stages, args.producer_warps, args.consumer_warps,
                                                args.gate_format == Stored::fp32 ? 4 : 2, args.staged);
  }
};
/// What the beginning of a unit costs a gang that goes on to it, in chunks.
inline constexpr double chunks_between_units = 12;

/// Least total time for `units` in at most `waves` launches one after the other; `first` is the cut of the first.
template <class Arguments> double plan(const std::vector<Cut<Arguments>>& cuts, std::int64_t units, int waves, std::size_t& first) {
  double best = std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i < cuts.size(); ++i) {
    double time = cuts[i].time;
    std::size_t next = 0;
    if (units > cuts[i].at_once) time += waves > 1 ? plan(cuts, units - cuts[i].at_once, waves - 1, next) : best;
    if (time < best) {
      best = time;
      first = i;
    }
  }
  return best;
}

/// Deals the chunks of all units out to as many gangs as run at once, if that takes clearly less than `otherwise`; false if not.
template <class Kernel, class Arguments>
cudaError_t launch_dealt(Kernel kernel, std::vector<Cut<Arguments>>& cuts, int most_warps_dealt, double otherwise, int shared_limit,
                         cudaStream_t stream, bool& dealt) {
  const ForwardArguments& call = cut_of(cuts.front().arguments);
  const std::int64_t units = call.N * call.HV, chunks = (call.T + chunk_tokens - 1) / chunk_tokens;
  Cut<Arguments>* best = nullptr;
  double least = 0.97 * otherwise;
  dealt = false;
  if (kernel == nullptr || call.handover == nullptr || call.cu_seqlens != nullptr || chunks == 0 || units * chunks >= std::int64_t{1} << 31)
    return cudaSuccess;
  for (Cut<Arguments>& cut : cuts) {
    const ForwardArguments& args = cut_of(cut.arguments);
    if (args.sharing != args.slices || units <= cut.at_once || cut.at_once > most_gangs) continue;
    if (args.consumer_warps + args.producer_warps > most_warps_dealt) continue;
    const double time =
        cut.time * static_cast<double>(units) / static_cast<double>(cut.at_once) * (1 + chunks_between_units / static_cast<double>(chunks));
    if (time < least) best = &cut, least = time;
  }
  if (best == nullptr) return cudaSuccess;
  dealt = true;
  if (const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_limit);
      error != cudaSuccess)
    return error;
  ForwardArguments& args = cut_of(best->arguments);
  args.share = static_cast<int>((units * chunks + best->at_once - 1) / best->at_once);
  const std::int64_t gangs = (units * chunks + args.share - 1) / args.share;
  if (const cudaError_t error = cudaMemsetAsync(args.handover, 0, handover_head_bytes, stream); error != cudaSuccess) return error;
  return launch_clusters(kernel, best->arguments, gangs, best->shared, stream, nullptr);
}

/// Few heads: the value columns of a unit are spread over a cluster of blocks. Up to two units a multiprocessor are cut so
/// that the launches together take the least time; more run in one launch, one block each. `for_dealt`: the kernel that has code for
/// more than a unit a gang, if there is one; `for_few`: the one for at most wide_warps, likewise. `How`: as ChunkCut.
template <class How, class Kernel, class Arguments>
cudaError_t launch_cut(Kernel kernel, Arguments arguments, cudaStream_t stream, ChunkShape wanted, Kernel for_dealt = nullptr,
                       Kernel for_few = nullptr) {
  ForwardArguments& args = cut_of(arguments);
  int device = 0, shared_limit = 0;
  if (const cudaError_t error = cudaGetDevice(&device); error != cudaSuccess) return error;
  if (const cudaError_t error = cudaDeviceGetAttribute(&shared_limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
      error != cudaSuccess)
    return error;
  for (Kernel one : {kernel, for_few})
    if (one != nullptr)
      if (const cudaError_t error = cudaFuncSetAttribute(one, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_limit);
          error != cudaSuccess)
        return error;
  const int groups = args.V / 16;
  int fewest = (groups + 7) / 8; // at most 8 consumer warps a block
  while (groups % fewest != 0) ++fewest;
  std::vector<Cut<Arguments>> cuts; // the last one always works: one cluster of one block for each slice
  for (int slices = std::max(8, fewest); slices >= fewest; --slices)
    for (int sharing = std::min(8, slices); sharing >= 1; --sharing) {
      const bool last = slices == fewest && sharing == 1;
      if (groups % slices != 0 || slices % sharing != 0 || (!wanted.sharing && sharing != slices && !last)) continue;
      if ((wanted.slices && slices != wanted.slices) || (wanted.sharing && sharing != wanted.sharing)) continue;
      args.slices = slices;
      args.sharing = sharing;
      args.staged = sharing > 2;
      args.consumer_warps = groups / slices;
      const int shared = How::fill(args, wanted, shared_limit);
      if (shared == 0) continue;
      int clusters = 0;
      if (const cudaError_t error = launch_clusters(kernel, arguments, 1, shared, stream, &clusters); error != cudaSuccess) return error;
      if (clusters * sharing >= slices) cuts.push_back({arguments, shared, clusters * sharing / slices, How::time(sharing)});
    }
  if (cuts.empty()) return cudaErrorInvalidConfiguration;
  const std::int64_t units = args.N * args.HV;
  const auto alone = [](const Cut<Arguments>& cut, std::int64_t left) {
    return cut.time * std::ceil(static_cast<double>(left) / static_cast<double>(cut.at_once));
  };
  std::size_t single = cuts.size() - 1; // for all units in one launch
  if (How::one_launch)
    for (std::size_t i = cuts.size(); i-- > 0;)
      if (alone(cuts[i], units) < alone(cuts[single], units)) single = i;
  constexpr int most_waves = 3;
  if (!wanted.slices && units > 0) {
    std::size_t first = 0;
    const double in_launches = How::one_launch ? alone(cuts[single], units) : plan(cuts, units, most_waves, first);
    bool dealt = false;
    if (const cudaError_t error =
            launch_dealt(for_dealt, cuts, How::dealt_warps, std::min(alone(cuts[single], units), in_launches), shared_limit, stream, dealt);
        error != cudaSuccess || dealt)
      return error;
  }
  for (std::int64_t done = 0; done < units;) {
    std::size_t choice = single;
    const bool many = units - done > 2 * cuts[choice].at_once;
    if (!many && !wanted.slices && !How::one_launch) {
      std::size_t first = choice;
      if (plan(cuts, units - done, most_waves, first) < 0.9 * alone(cuts[choice], units - done))
        choice = first; // launches that follow one another cost too
    }
    Cut<Arguments>& cut = cuts[choice];
    const std::int64_t now = many || wanted.slices || choice == single ? units - done : std::min(units - done, cut.at_once);
    cut_of(cut.arguments).first_unit = done;
    const bool few = for_few != nullptr && cut_of(cut.arguments).consumer_warps + cut_of(cut.arguments).producer_warps <= wide_warps;
    if (const cudaError_t error = launch_clusters(few ? for_few : kernel, cut.arguments, now, cut.shared, stream, nullptr);
        error != cudaSuccess)
      return error;
    done += now;
  }
  return cudaSuccess;
}

/// Keys of neither 64 nor 128 channels: chunks are not dealt out. In files of their own (chunk_narrow_TIER.cu).
template <int pieces> cudaError_t launch_chunk_narrow(const ForwardArguments& args, cudaStream_t stream, ChunkShape wanted) {
  const auto launch = [&]<int K>(bool half) {
    using Cut = ChunkCut<K, pieces, Sweep::forward>;
    return half ? launch_cut<Cut>(chunk_forward<K, pieces, true, false, false, true>, args, stream, wanted)
                : launch_cut<Cut>(chunk_forward<K, pieces, false, false, false, true>, args, stream, wanted);
  };
  const bool half = args.qkv_format == Stored::fp16;
  if (args.K < 64) return launch.template operator()<64>(half);
  return args.K < 128 ? launch.template operator()<128>(half) : launch.template operator()<256>(half);
}

template <int K, int pieces, bool half_precision>
cudaError_t launch_chunk(const ForwardArguments& args, cudaStream_t stream, ChunkShape wanted) {
  return launch_cut<ChunkCut<K, pieces, Sweep::forward>>(chunk_forward<K, pieces, half_precision, false, false>, args, stream, wanted,
                                                         chunk_forward<K, pieces, half_precision, true, true>,
                                                         chunk_forward<K, pieces, half_precision, false, true>);
}

template <int pieces> cudaError_t launch_chunk_any(const ForwardArguments& args, cudaStream_t stream, ChunkShape wanted) {
  const bool half = args.qkv_format == Stored::fp16;
  if (args.K == 64)
    return half ? launch_chunk<64, pieces, true>(args, stream, wanted) : launch_chunk<64, pieces, false>(args, stream, wanted);
  if (args.K != 128)
    return pieces == 1 ? launch_chunk_narrow_fast(args, stream, wanted) : launch_chunk_narrow_accurate(args, stream, wanted);
  return half ? launch_chunk<128, pieces, true>(args, stream, wanted) : launch_chunk<128, pieces, false>(args, stream, wanted);
}

} // namespace kdacheck::cuda
