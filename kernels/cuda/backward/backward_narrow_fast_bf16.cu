// Backward pass, tier `fast`, keys of neither 64 nor 128 channels, inputs in bf16.

#include "backward_launch.cuh"

namespace kdacheck::cuda {

template cudaError_t launch_backward<128, 1, false, true>(const BackwardArguments&, cudaStream_t);
template cudaError_t launch_backward<256, 1, false, true>(const BackwardArguments&, cudaStream_t);

} // namespace kdacheck::cuda
