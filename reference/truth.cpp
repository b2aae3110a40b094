#include "truth.hpp"

#include "certified_tiers.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>

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

constexpr int least_bits = 113, most_bits = 1024;
constexpr std::int64_t most_channels = 4096; ///< up to which rounded_up covers the rounding of a bound (rounding.hpp)

Truth run(const Problem& problem, Arithmetic arithmetic, int bits, Pass fp64, Pass double_double, Pass mpfr) {
  if (problem.shape.K > most_channels)
    throw std::invalid_argument("the oracle is proved for " + std::to_string(most_channels) + " key channels at most, not " +
                                std::to_string(problem.shape.K));
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
  default:
    truth.bits = std::max(bits, least_bits);
    mpfr(problem, truth);
    return truth;
  }
}

} // namespace

Truth forward_truth(const Problem& problem, Arithmetic arithmetic, int bits) {
  return run(problem, arithmetic, bits, certified::forward_fp64, certified::forward_double_double, certified::forward_mpfr);
}

Truth gradient_truth(const Problem& problem, Arithmetic arithmetic, int bits) {
  return run(problem, arithmetic, bits, certified::gradient_fp64, certified::gradient_double_double, certified::gradient_mpfr);
}

std::optional<std::pair<Arithmetic, int>> more_precise(const Truth& truth) {
  if (truth.arithmetic == Arithmetic::fp64) return std::pair{Arithmetic::double_double, 106};
  // just above the 106 bits of double-double nothing would be gained
  if (truth.arithmetic == Arithmetic::double_double) return std::pair{Arithmetic::multiprecision, 2 * least_bits};
  if (truth.bits < most_bits) return std::pair{Arithmetic::multiprecision, std::min(2 * truth.bits, most_bits)};
  return std::nullopt;
}

} // namespace kdacheck
