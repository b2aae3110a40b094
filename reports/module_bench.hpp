#pragma once
// Times of the modules at the sizes for which the summary that this project grew from gives figures.

#include "bench.hpp"

namespace kdacheck {

/// Rows of gating, state update and transition; ratios of each to the summary's figure, which was measured on its own machine
/// and is named so; the overhead of checkpoints and the specialised transition against the general one, timed by turns.
void bench_modules(Bench&);

} // namespace kdacheck
