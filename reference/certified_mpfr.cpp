#include "certified_tiers.hpp"
#include "gradient_run.hpp"
#include "multiprecision.hpp"

namespace kdacheck::certified {

void forward_mpfr(const Problem& problem, Truth& truth) { run_forward<MpfrArithmetic>(problem, truth); }
void gradient_mpfr(const Problem& problem, Truth& truth) { run_gradient<MpfrArithmetic>(problem, truth); }

} // namespace kdacheck::certified
