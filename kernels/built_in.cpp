#include "kernel.hpp"

namespace kdacheck {

/// One file under cpu/ gives each; add a line here.
void append_cpu_kernels(std::vector<Kernel>&);

std::span<const Kernel> built_in_kernels() {
  static const std::vector<Kernel> all = [] {
    std::vector<Kernel> kernels;
    append_cpu_kernels(kernels);
    return kernels;
  }();
  return all;
}

} // namespace kdacheck
