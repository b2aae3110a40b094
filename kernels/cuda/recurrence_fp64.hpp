#pragma once
// The token recurrence in double on the host, for the checks of the CUDA kernels: plain, not certified.

#include "../kernel.hpp"

#include <vector>

namespace kdacheck::cuda {

/// One sequence and value head.
struct HeadResult {
  std::vector<double> o;     ///< [length,V]
  std::vector<double> state; ///< [K,V]
};

/// Inputs are host views; the initial state is [N,HV,V,K] if v_first.
HeadResult recurrence_fp64(const Inputs&, std::int64_t n, std::int64_t head, bool v_first = false);

} // namespace kdacheck::cuda
