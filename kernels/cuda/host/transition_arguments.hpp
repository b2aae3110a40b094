#pragma once
// What the transition alone is launched with, already checked (check.hpp).

#include "arguments.hpp"

namespace kdacheck::cuda {

struct TransitionArguments {
  View d, a, b, k, v; ///< k and v absent: nothing is added
  Stored d_format = Stored::fp32, a_format = Stored::fp32, b_format = Stored::fp32, k_format = Stored::fp32, v_format = Stored::fp32;
  float* state = nullptr; ///< [slots,HV,K,V]
  const std::int32_t* slot = nullptr;
  std::int64_t B = 1, slots = 1;
  int T = 1, HV = 1, K = 1, V = 4;
};

} // namespace kdacheck::cuda
