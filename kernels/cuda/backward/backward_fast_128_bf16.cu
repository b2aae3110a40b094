// Backward pass, tier `fast`, K = 128, inputs in bf16.

#include "backward_launch.cuh"

namespace kdacheck::cuda {

template cudaError_t launch_backward<128, 1, false, false>(const BackwardArguments&, cudaStream_t);

} // namespace kdacheck::cuda
