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

Truth forward_truth(const Problem& problem, Arithmetic arithmetic, int bits) {
  Truth truth;
  truth.arithmetic = arithmetic;
  switch (arithmetic) {
  case Arithmetic::fp64:
    truth.bits = 53;
    certified::forward_fp64(problem, truth);
    return truth;
  case Arithmetic::double_double:
    truth.bits = 106;
    certified::forward_double_double(problem, truth);
    return truth;
  default: throw std::invalid_argument("truth: multiprecision with " + std::to_string(bits) + " bits is not available");
  }
}

std::optional<std::pair<Arithmetic, int>> more_precise(const Truth& truth) {
  if (truth.arithmetic == Arithmetic::fp64) return std::pair{Arithmetic::double_double, 106};
  return std::nullopt;
}

} // namespace kdacheck
