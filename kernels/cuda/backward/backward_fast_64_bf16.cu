// Backward pass, tier `fast`, K = 64, inputs in bf16.

#include "backward_launch.cuh"

namespace kdacheck::cuda {

template cudaError_t launch_backward<64, 1, false, false>(const BackwardArguments&, cudaStream_t);

} // namespace kdacheck::cuda
