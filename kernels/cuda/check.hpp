#pragma once
// Host side of the public interface: what can be said about a call without a device.

#include "arguments.hpp"
#include "kdacheck_cuda.h"

#include <vector>

namespace kdacheck::cuda {

/// A result with its sentence.
kdacheck_cuda_result refuse(kdacheck_cuda_status status, const char* sentence);

struct CheckedCall {
  kdacheck_cuda_result result{};
  ForwardArguments args; ///< valid if result.status is KDACHECK_CUDA_OK
  std::int64_t sequences = 0;
  std::vector<const void*> device_pointers; ///< all that must be device memory
};

/// Shapes, formats, options, layout, sequences; not what the pointers point to.
CheckedCall check_call(int kernel, const kdacheck_cuda_problem*);

/// Workspace of a checked call. The forward kernels need none.
std::size_t workspace_bytes(int kernel, const ForwardArguments&);

} // namespace kdacheck::cuda
