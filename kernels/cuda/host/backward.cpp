#include "launch.hpp"

namespace kdacheck::cuda {

template <int K, int pieces, bool half_precision, bool narrow>
cudaError_t launch_backward(const BackwardArguments&, cudaStream_t); // backward_launch.cuh
template <int K, bool half_precision>
cudaError_t launch_general_backward(const BackwardArguments&, cudaStream_t); // dplr_backward_launch.cuh

namespace {

template <int K, int pieces, bool narrow = false> cudaError_t launch_format(const BackwardArguments& args, cudaStream_t stream) {
  return args.call.qkv_format == Stored::fp16 ? launch_backward<K, pieces, true, narrow>(args, stream)
                                              : launch_backward<K, pieces, false, narrow>(args, stream);
}

template <int pieces> cudaError_t launch_any(const BackwardArguments& args, cudaStream_t stream) {
  const int K = args.call.K;
  if (K == 64) return launch_format<64, pieces>(args, stream);
  if (K == 128) return launch_format<128, pieces>(args, stream);
  if constexpr (pieces == 1)
    if (K > 128) return launch_format<256, pieces, true>(args, stream);
  return launch_format<128, pieces, true>(args, stream);
}

/// The general rule (DPLR).
cudaError_t launch_general(const BackwardArguments& args, cudaStream_t stream) {
  const bool half = args.call.qkv_format == Stored::fp16;
  if (args.call.K == 64) return half ? launch_general_backward<64, true>(args, stream) : launch_general_backward<64, false>(args, stream);
  return half ? launch_general_backward<128, true>(args, stream) : launch_general_backward<128, false>(args, stream);
}

} // namespace

cudaError_t launch_backward_fast(const BackwardArguments& args, cudaStream_t stream) {
  return args.call.dplr ? launch_general(args, stream) : launch_any<1>(args, stream);
}
cudaError_t launch_backward_accurate(const BackwardArguments& args, cudaStream_t stream) { return launch_any<2>(args, stream); }

} // namespace kdacheck::cuda
