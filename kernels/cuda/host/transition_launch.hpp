#pragma once

#include "transition_arguments.hpp"

#include <cuda_runtime_api.h>

namespace kdacheck::cuda {

cudaError_t launch_transition(const TransitionArguments&, cudaStream_t);

} // namespace kdacheck::cuda
