// Backward pass, tier `fast`, K = 64, inputs in fp16.

#include "backward_launch.cuh"

namespace kdacheck::cuda {

template cudaError_t launch_backward<64, 1, true, false>(const BackwardArguments&, cudaStream_t);

} // namespace kdacheck::cuda
