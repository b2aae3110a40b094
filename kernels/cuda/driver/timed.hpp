#pragma once
// The cases that are timed, and how far a kernel's answer on their very inputs is from the recurrence in double.

#include "../host/recurrence_fp64.hpp"
#include "device.hpp"

#include <vector>

namespace kdacheck::cuda {

struct TimedCase {
  const char* name;
  std::int64_t B, T, H;
  double must;              ///< target in ms, fast tier; of decode: share of the copy bandwidth; 0: none
  double must_accurate = 0; ///< target in ms, accurate tier
};
std::vector<TimedCase> forward_cases(); ///< KDA, K = V = 128
std::vector<TimedCase> general_cases(); ///< DPLR
std::vector<TimedCase> decode_cases();

/// Seed of a case's first set of inputs.
inline constexpr unsigned timed_seed = 100;

/// One sequence and value head of a case, as double gives it.
struct SampledHead {
  std::int64_t n, head;
  HeadResult exact;
};

/// The first head of the first sequence and the last of the last. Of decode: from the states as they are now.
std::vector<SampledHead> sampled_truth(const DeviceProblem&);

/// Relative L2 errors over the sampled heads of what the device holds.
struct Errors {
  double o = 0, state = 0;
};
Errors sampled_errors(const DeviceProblem&, const std::vector<SampledHead>&);

} // namespace kdacheck::cuda
