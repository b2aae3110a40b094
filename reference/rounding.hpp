#pragma once
// What one operation of a number type may be wrong by: the constants of every bound in this folder.

#include "certified_exp.hpp"

namespace kdacheck::certified {

/// Relative error bounds of a number type N, and the real type its bounds are kept in:
///   sum, product   of x + y and x y, relative to the result
///   fused          what multiply_add(a, b, c) adds to one `sum` error, relative to a b
///   quotient       of x / y and square_root(x)
///   exponential    of exponential(x), |x| <= 660
template <class N> struct Rounding;

template <> struct Rounding<double> {
  using Bound = double;
  static constexpr double sum = double_unit, product = double_unit, fused = 0;
};
template <> struct Rounding<Pack> : Rounding<double> {
  using Bound = Pack;
};
template <class Real> struct Rounding<DoubleDouble<Real>> {
  using Bound = Real;
  static constexpr double sum = double_double_sum_error, product = double_double_product_error, fused = product;
  static constexpr double quotient = double_double_quotient_error, exponential = certified_exp_error;
};

template <class N> using Bound = typename Rounding<N>::Bound;

/// Marks the number types of Boost.Multiprecision (multiprecision.hpp); their bounds are kept in double.
template <class N> inline constexpr bool is_multiprecision = false;
template <class N>
concept Multiprecision = is_multiprecision<N>;

/// The leading double of a number: within a relative 2^-53 of it (or of 2^-1074).
[[gnu::always_inline]] inline double leading(double x) { return x; }
[[gnu::always_inline]] inline Pack leading(const Pack& x) { return x; }
template <class Real> [[gnu::always_inline]] inline Real leading(const DoubleDouble<Real>& x) { return x.high; }

template <Multiprecision N> inline double leading(const N& x) { return x.template convert_to<double>(); }

template <Multiprecision N> inline N multiply_add(const N& a, const N& b, const N& c) { return a * b + c; }
template <Multiprecision N> inline N square_root(const N& x) { return sqrt(x); }
template <Multiprecision N> inline N choose(bool condition, const N& a, const N& b) { return condition ? a : b; }
template <Multiprecision N> inline N sum_lanes(const N& x) { return x; }

/// A number that is a double exactly.
template <class N> [[gnu::always_inline]] inline N exactly(const Bound<N>& x) {
  if constexpr (requires(N number) { number.high; })
    return N{x, Bound<N>{}};
  else
    return N(x);
}

/// Exponential within Rounding<N>::exponential, for |x| <= 660.
template <class Real> inline DoubleDouble<Real> exponential(const DoubleDouble<Real>& x) { return certified_exp(x); }
template <Multiprecision N> inline N exponential(const N& x) { return Rounding<N>::exp(x); }

/// Bounds are computed in double, to nearest. A line of a bound is a sum of at most K + 20 products of non-negative
/// doubles: its relative error is below (K + 20) 2^-53 < 2^-41 for K <= 4096. A norm taken from leading doubles adds
/// 2^-53. One factor `rounded_up` per line covers both; it compounds to 1 + 6e-8 over 65,536 tokens.
inline constexpr double rounded_up = 1 + 0x1p-40;

/// Added to every bound kept across tokens, against its own underflow.
inline constexpr double bound_floor = 0x1p-960;

/// Added to every column norm: squares below 2^-1074 vanish, that is entries below 2^-537 (times sqrt(K)). It also pays for
/// underflow of the numbers themselves: each operation may lose 2^-1060, and 0.01 u 2^-520, which the factor 1.01 on every
/// rounding term holds back, is more than all operations of a token lose as long as the operands are fp32 numbers.
inline constexpr double norm_floor = 0x1p-520;

} // namespace kdacheck::certified
