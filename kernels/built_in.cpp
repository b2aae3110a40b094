#include "kernel.hpp"

namespace kdacheck {

/// One file under cpu/ gives each; add a line here.
void append_cpu_kernels(std::vector<Kernel>&);
#if defined(KDACHECK_HAS_CUDA)
void append_cuda_kernels(std::vector<Kernel>&); // none where no GPU answers
#endif

std::span<const Kernel> built_in_kernels() {
  static const std::vector<Kernel> all = [] {
    std::vector<Kernel> kernels;
    append_cpu_kernels(kernels);
#if defined(KDACHECK_HAS_CUDA)
    append_cuda_kernels(kernels);
#endif
    return kernels;
  }();
  return all;
}

} // namespace kdacheck
