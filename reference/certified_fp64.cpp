#include "certified_tiers.hpp"
#include "forward_run.hpp"

namespace kdacheck::certified {

void forward_fp64(const Problem& problem, Truth& truth) { run_forward<Fp64Arithmetic>(problem, truth); }

} // namespace kdacheck::certified
