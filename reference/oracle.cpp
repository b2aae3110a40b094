#include "oracle.hpp"
#include "evaluate_in.hpp"

#include <stdexcept>

namespace kdacheck {

std::string_view name(NumberType type) {
  switch (type) {
  case NumberType::fp64: return "fp64";
  case NumberType::long_double: return "long_double";
  case NumberType::cpp_bin_float_113: return "cpp_bin_float_113";
  case NumberType::cpp_bin_float_50: return "cpp_bin_float_50";
  case NumberType::cpp_bin_float_100: return "cpp_bin_float_100";
  case NumberType::mpfr_113: return "mpfr_113";
  case NumberType::mpfr_50: return "mpfr_50";
  case NumberType::mpfr_100: return "mpfr_100";
  default: return "mpfr_variable";
  }
}

namespace {

Evaluation evaluate_as(const Problem& problem, NumberType type, unsigned digits, Wanted wanted) {
  if (const auto sentence = malformed(problem)) throw std::invalid_argument(*sentence);
  switch (type) {
  case NumberType::fp64: return evaluate_fp64(problem, wanted);
  case NumberType::long_double: return evaluate_long_double(problem, wanted);
  case NumberType::cpp_bin_float_113: return evaluate_cpp_bin_float_113(problem, wanted);
  case NumberType::cpp_bin_float_50: return evaluate_cpp_bin_float_50(problem, wanted);
  case NumberType::cpp_bin_float_100: return evaluate_cpp_bin_float_100(problem, wanted);
  case NumberType::mpfr_113: return evaluate_mpfr_113(problem, wanted);
  case NumberType::mpfr_50: return evaluate_mpfr_50(problem, wanted);
  case NumberType::mpfr_100: return evaluate_mpfr_100(problem, wanted);
  default: return evaluate_mpfr_variable(problem, wanted, digits);
  }
}

} // namespace

Evaluation evaluate(const Problem& problem, NumberType type, unsigned digits) {
  return evaluate_as(problem, type, digits, Wanted::outputs);
}

Evaluation evaluate_gradients(const Problem& problem, NumberType type, unsigned digits) {
  return evaluate_as(problem, type, digits, Wanted::gradients);
}

} // namespace kdacheck
