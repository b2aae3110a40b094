#pragma once
// Times of the program as a user calls it.

#include "bench.hpp"

namespace kdacheck {

/// Rows for `verify` as a process of its own: one kernel, law and regime (what a start costs), and the quick tier over all
/// built-in kernels, laws and modules, once. Throws std::runtime_error if a run does not pass.
void bench_whole_runs(Bench&);

} // namespace kdacheck
