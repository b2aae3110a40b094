#include "truth.hpp"

#include "certified_tiers.hpp"

#include <stdexcept>

namespace kdacheck {

std::string_view name(Arithmetic arithmetic) {
  switch (arithmetic) {
  case Arithmetic::fp64: return "fp64";
  case Arithmetic::double_double: return "double_double";
  default: return "multiprecision";
  }
}

namespace {

using Pass = void (*)(const Problem&, Truth&);

Truth run(const Problem& problem, Arithmetic arithmetic, int bits, Pass fp64, Pass double_double) {
  Truth truth;
  truth.arithmetic = arithmetic;
  switch (arithmetic) {
  case Arithmetic::fp64:
    truth.bits = 53;
    fp64(problem, truth);
    return truth;
  case Arithmetic::double_double:
    truth.bits = 106;
    double_double(problem, truth);
    return truth;
  default: throw std::invalid_argument("truth: multiprecision with " + std::to_string(bits) + " bits is not available");
  }
}

} // namespace

Truth forward_truth(const Problem& problem, Arithmetic arithmetic, int bits) {
  return run(problem, arithmetic, bits, certified::forward_fp64, certified::forward_double_double);
}

Truth gradient_truth(const Problem& problem, Arithmetic arithmetic, int bits) {
  return run(problem, arithmetic, bits, certified::gradient_fp64, certified::gradient_double_double);
}

std::optional<std::pair<Arithmetic, int>> more_precise(const Truth& truth) {
  if (truth.arithmetic == Arithmetic::fp64) return std::pair{Arithmetic::double_double, 106};
  return std::nullopt;
}

} // namespace kdacheck
