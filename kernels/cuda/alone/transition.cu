// The transition alone (transition.cuh).
//
// Predicted, not measured: limited by memory where heads are many, 64 columns in a block of 256 threads, three of them a multiprocessor, 96
// KB of reads on the way: 0.079 ms for 64 sequences of 32 heads at K = V = 128 and 3.4 TB/s. Few heads: 16 columns in a block of 64.

#include "../host/transition_launch.hpp"
#include "transition.cuh"

namespace kdacheck::cuda {
namespace {

template <int K, int columns>
__global__ void __launch_bounds__(TransitionCut<K, columns>::threads, columns == 16 ? 8
                                                                      : K > 128     ? 2
                                                                                    : 3)
    transition(const __grid_constant__ TransitionArguments args) {
  transition_block<K, columns>(args);
}

template <int K, int columns> cudaError_t launch(const TransitionArguments& args, cudaStream_t stream) {
  const std::int64_t slices = (args.V + columns - 1) / columns;
  transition<K, columns><<<static_cast<unsigned>(args.B * args.HV * slices), TransitionCut<K, columns>::threads,
                           transition_shared_bytes<K, columns>(args.T), stream>>>(args);
  return cudaGetLastError();
}

template <int K> cudaError_t launch_room(const TransitionArguments& args, cudaStream_t stream) {
  constexpr std::int64_t many_heads = 96;
  return args.B * args.HV >= many_heads ? launch<K, 64>(args, stream) : launch<K, 16>(args, stream);
}

} // namespace

cudaError_t launch_transition(const TransitionArguments& args, cudaStream_t stream) {
  return args.K <= 64 ? launch_room<64>(args, stream) : args.K <= 128 ? launch_room<128>(args, stream) : launch_room<256>(args, stream);
}

} // namespace kdacheck::cuda
