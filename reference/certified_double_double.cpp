#include "certified_tiers.hpp"
#include "forward_run.hpp"

namespace kdacheck::certified {

void forward_double_double(const Problem& problem, Truth& truth) { run_forward<DoubleDoubleArithmetic>(problem, truth); }

} // namespace kdacheck::certified
