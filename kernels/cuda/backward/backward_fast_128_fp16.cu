// Backward pass, tier `fast`, K = 128, inputs in fp16.

#include "backward_launch.cuh"

namespace kdacheck::cuda {

template cudaError_t launch_backward<128, 1, true, false>(const BackwardArguments&, cudaStream_t);

} // namespace kdacheck::cuda
