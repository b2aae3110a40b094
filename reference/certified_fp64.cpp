#include "certified_tiers.hpp"
#include "gradient_run.hpp"

namespace kdacheck::certified {

void forward_fp64(const Problem& problem, Truth& truth) { run_forward<Fp64Arithmetic>(problem, truth); }
void gradient_fp64(const Problem& problem, Truth& truth) { run_gradient<Fp64Arithmetic>(problem, truth); }

} // namespace kdacheck::certified
