#pragma once
// The calls that a law makes of a kernel, seen from outside: laws say that they are broken, not by which of their calls.

#include "run.hpp"

#include <cstdint>
#include <vector>

namespace kdacheck {

enum class Pass : std::uint8_t { forward, decode, backward };

struct ObservedCall {
  Pass pass = Pass::forward;
  Problem problem;
  RunOptions options;
  Run run;
};

/// While it lives: every run_forward, run_decode and run_backward of this thread that came back, in order. Of two, the one made last sees
/// them.
class ObservedCalls {
public:
  ObservedCalls();
  ~ObservedCalls();
  ObservedCalls(const ObservedCalls&) = delete;
  ObservedCalls& operator=(const ObservedCalls&) = delete;

  std::vector<ObservedCall> calls;

private:
  ObservedCalls* outer_;
};

/// What run_forward, run_decode and run_backward tell.
void observe(Pass, const Problem&, const RunOptions&, const Run&);

} // namespace kdacheck
