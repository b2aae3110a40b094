// Backward pass of the general rule, tier `fast`, K = 64, inputs in bf16.

#include "dplr_backward_launch.cuh"

namespace kdacheck::cuda {

template cudaError_t launch_general_backward<64, false>(const BackwardArguments&, cudaStream_t);

} // namespace kdacheck::cuda
