#pragma once
// The token recurrence in double on the host, for the checks of the CUDA kernels: plain, not certified.

#include "../../kernel.hpp"

#include <vector>

namespace kdacheck::cuda {

/// One sequence and value head.
struct HeadResult {
  std::vector<double> o;     ///< [length,V]
  std::vector<double> state; ///< [K,V]
};

/// Inputs are host views; the initial state is [N,HV,V,K] if v_first.
HeadResult recurrence_fp64(const Inputs&, std::int64_t n, std::int64_t head, bool v_first = false);

/// Gradients from one sequence and value head, to the tensors as they are stored; those of shared tensors (q, k, A_log, dt_bias)
/// are this head's and sequence's part.
struct HeadGradients {
  std::vector<double> q, k, g;        ///< [length,K]
  std::vector<double> a, b;           ///< [length,K], DPLR only
  std::vector<double> v;              ///< [length,V]
  std::vector<double> beta;           ///< [length], KDA only
  std::vector<double> dt_bias;        ///< [K]
  double A_log = 0, A_log_square = 0; ///< the latter: sum of squares of its terms, which may cancel
  std::vector<double> initial_state;  ///< [K,V]
};

/// The states are [N,HV,V,K] if v_first.
HeadGradients adjoint_fp64(const Inputs&, const Cotangents&, std::int64_t n, std::int64_t head, bool v_first = false);

} // namespace kdacheck::cuda
