#pragma once
// The two ceilings of this machine that a kernel's time is held against, measured, not looked up.

namespace kdacheck {

struct MachineLimits {
  double copy_bytes_per_second = 0; ///< all cores copying far more than the caches hold, bytes read plus bytes written
  double fp32_flops_per_second = 0; ///< all cores, multiply-adds of whole registers, as the kernels' products are made of
};

/// Takes about half a second.
MachineLimits measured_limits();

} // namespace kdacheck
