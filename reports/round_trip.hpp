#pragma once
// What a call of a foreign kernel costs beyond the kernel itself.

#include "bench.hpp"

namespace kdacheck {

/// Appends rows for B 1, T 64, H 1, K = V = 64: the example plug-in (kernels/plugin/example_plugin.c) called in this process and
/// through a child process, by turns, and the median of the differences; a Python function that computes nothing, whose
/// whole time is what the route adds. A route that cannot be measured (no NumPy) is named on standard error.
void bench_round_trips(Bench&);

} // namespace kdacheck
