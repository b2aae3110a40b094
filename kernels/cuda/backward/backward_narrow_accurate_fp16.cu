// Backward pass, tier `accurate`, keys of neither 64 nor 128 channels, inputs in fp16.

#include "backward_launch.cuh"

namespace kdacheck::cuda {

template cudaError_t launch_backward<128, 2, true, true>(const BackwardArguments&, cudaStream_t);

} // namespace kdacheck::cuda
