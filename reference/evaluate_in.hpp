#pragma once
// The body of the oracle's entry points for one number type. Each type is instantiated in a file of its own, because a
// multiprecision type compiles slowly.

#include "adjoint.hpp"
#include "oracle.hpp"
#include "recurrence.hpp"

#include <type_traits>
#include <utility>

namespace kdacheck {

/// Whether gradients are wanted besides the outputs.
enum class Wanted : std::uint8_t { outputs, gradients };

/// Splits numbers into two doubles. Where the first word overflows or is not a number, the second is zero.
template <Number N> Digits to_digits(const std::vector<N>& numbers) {
  Digits result;
  for (const N& number : numbers) {
    const double value = static_cast<double>(number);
    result.value.push_back(value);
    if constexpr (!std::is_same_v<N, double>) result.low.push_back(std::isfinite(value) ? static_cast<double>(N(number - N(value))) : 0.0);
  }
  return result;
}

template <Number N> Evaluation evaluate_in(const Problem& problem, Wanted wanted, int bits) {
  Evaluation result;
  result.bits = bits;
  if (wanted == Wanted::outputs) {
    const Forward<N> outputs = forward<N>(problem);
    result.o = to_digits(outputs.o);
    result.final_state = to_digits(outputs.final_state);
    return result;
  }
  const Reverse<N> reverse = backward<N>(problem);
  result.o = to_digits(reverse.outputs.o);
  result.final_state = to_digits(reverse.outputs.final_state);
  for (Input input : all_inputs) result[input] = to_digits(reverse.gradients[input]);
  return result;
}

// One per number type; see oracle_*.cpp.
Evaluation evaluate_fp64(const Problem&, Wanted);
Evaluation evaluate_long_double(const Problem&, Wanted);
Evaluation evaluate_cpp_bin_float_113(const Problem&, Wanted);
Evaluation evaluate_cpp_bin_float_50(const Problem&, Wanted);
Evaluation evaluate_cpp_bin_float_100(const Problem&, Wanted);
Evaluation evaluate_mpfr_113(const Problem&, Wanted);
Evaluation evaluate_mpfr_50(const Problem&, Wanted);
Evaluation evaluate_mpfr_100(const Problem&, Wanted);
Evaluation evaluate_mpfr_variable(const Problem&, Wanted, unsigned digits);

} // namespace kdacheck
