#include "launch.hpp"

namespace kdacheck::cuda {

template <int K, int pieces, bool half_precision>
cudaError_t launch_backward(const BackwardArguments&, cudaStream_t); // backward_launch.cuh
template <int K, bool half_precision>
cudaError_t launch_general_backward(const BackwardArguments&, cudaStream_t); // dplr_backward_launch.cuh

namespace {

template <int pieces> cudaError_t launch_any(const BackwardArguments& args, cudaStream_t stream) {
  const bool half = args.call.qkv_format == Stored::fp16;
  if (args.call.K == 64) return half ? launch_backward<64, pieces, true>(args, stream) : launch_backward<64, pieces, false>(args, stream);
  return half ? launch_backward<128, pieces, true>(args, stream) : launch_backward<128, pieces, false>(args, stream);
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
