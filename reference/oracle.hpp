#pragma once
// The recurrence and its adjoint evaluated in a number type chosen at run time: no error bounds, many arithmetics.
// Certified results are in truth.hpp; these are its independent witnesses.

#include "problem.hpp"

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace kdacheck {

/// Number types with their significand.
enum class NumberType : std::uint8_t {
  fp64,              ///< 53 bits
  long_double,       ///< 64 bits
  cpp_bin_float_113, ///< Boost.Multiprecision, own arithmetic: 113 bits; below 2^-16382 it has only 0
  cpp_bin_float_50,  ///< 50 decimal digits
  cpp_bin_float_100, ///< 100 decimal digits
  mpfr_113,          ///< MPFR: at least 113 bits
  mpfr_50,           ///< at least 50 decimal digits
  mpfr_100,          ///< at least 100 decimal digits
  mpfr_variable,     ///< as many decimal digits as asked for
};
inline constexpr std::array all_number_types{NumberType::fp64,
                                             NumberType::long_double,
                                             NumberType::cpp_bin_float_113,
                                             NumberType::cpp_bin_float_50,
                                             NumberType::cpp_bin_float_100,
                                             NumberType::mpfr_113,
                                             NumberType::mpfr_50,
                                             NumberType::mpfr_100,
                                             NumberType::mpfr_variable};

std::string_view name(NumberType);

/// A tensor as the unevaluated sum value + low, each rounded to nearest: together about 107 bits of the computed number.
struct Digits {
  std::vector<double> value;
  std::vector<double> low; ///< empty for fp64
  bool empty() const { return value.empty(); }
};

/// Outputs and, on request, gradients of <d_o, o> + <d_final_state, S_final>.
struct Evaluation {
  Digits o;                                       ///< [B,T,HV,V]
  Digits final_state;                             ///< [N,HV,K,V]
  std::array<Digits, all_inputs.size()> gradient; ///< by Input, shape of the primal; empty where absent or not asked for
  int bits = 53;                                  ///< significand of the arithmetic

  const Digits& operator[](Output output) const { return output == Output::o ? o : final_state; }
  const Digits& operator[](Input input) const { return gradient[static_cast<std::size_t>(input)]; }
  Digits& operator[](Input input) { return gradient[static_cast<std::size_t>(input)]; }
};

/// Runs the naive recurrence on a well-formed problem. `digits` is read by mpfr_variable only.
/// Errors: throws std::invalid_argument with the sentence of `malformed`.
Evaluation evaluate(const Problem&, NumberType = NumberType::fp64, unsigned digits = 200);

/// The same with the gradient to every tensor that the problem has.
Evaluation evaluate_gradients(const Problem&, NumberType = NumberType::fp64, unsigned digits = 200);

} // namespace kdacheck
