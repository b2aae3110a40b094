#include "certified_tiers.hpp"
#include "gradient_run.hpp"
#include "multiprecision.hpp"

namespace kdacheck::certified {

void forward_cpp_bin_float(const Problem& problem, Truth& truth) {
  truth.arithmetic = Arithmetic::multiprecision;
  truth.bits = bin_float_bits;
  run_forward<BinFloatArithmetic>(problem, truth);
}

void gradient_cpp_bin_float(const Problem& problem, Truth& truth) {
  truth.arithmetic = Arithmetic::multiprecision;
  truth.bits = bin_float_bits;
  run_gradient<BinFloatArithmetic>(problem, truth);
}

} // namespace kdacheck::certified
