#pragma once
// The CUDA kernels as kernels of the suite.

#include "../../kernel.hpp"

namespace kdacheck {

/// Adds the CUDA kernels if the current device can run them; otherwise nothing. Each call copies the host tensors to
/// guarded device buffers with poisoned outputs, launches, and throws std::runtime_error if a guard or an input changed.
void append_cuda_kernels(std::vector<Kernel>&);

/// Why there are none ("not run: no GPU: ..."), or empty.
std::string cuda_kernels_absent();

} // namespace kdacheck
