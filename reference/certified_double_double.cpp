#include "certified_tiers.hpp"
#include "gradient_run.hpp"

namespace kdacheck::certified {

void forward_double_double(const Problem& problem, Truth& truth) { run_forward<DoubleDoubleForward>(problem, truth); }
void gradient_double_double(const Problem& problem, Truth& truth) { run_gradient<DoubleDoubleArithmetic>(problem, truth); }

} // namespace kdacheck::certified
