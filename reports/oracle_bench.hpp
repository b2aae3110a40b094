#pragma once
// Token-heads per second of every arithmetic that the oracle can work in.

#include "bench.hpp"

namespace kdacheck {

/// Appends a row per arithmetic at K = V = 128 on one core: the certified tiers, forward and with gradients, and beside them Boost's
/// number types and the built-in ones run plainly, without a bound. Times are of the processor, so that a busy machine distorts them
/// less; an oracle slower than `asked_per_second` makes long cases dearer than the kernels that they judge.
void bench_oracle(Bench&);

/// Appends a row for fp64 and one for double-double: so many heads of 65,536 tokens, K = V = 128, forward with the bound, on all cores,
/// by the clock on the wall. The heads are one head's numbers over and over, each computed anew; nothing is extrapolated.
void bench_long_oracle(Bench&, int heads);

} // namespace kdacheck
