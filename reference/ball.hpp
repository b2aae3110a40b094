#pragma once
// Numbers with a radius, for the effective inputs of a token: gates, strengths and normalised keys.
//
// Ball arithmetic follows every operation with its error, so that no analysis of a formula is needed, only of the
// operations. It would blow up along the recurrence (one bit per token), which therefore has a bound of its own.

#include "rounding.hpp"

#include <limits>

namespace kdacheck::certified {

/// The exact number lies within `radius` of `mid`.
template <class N> struct Ball {
  N mid{};
  Bound<N> radius{};
};

inline constexpr double ball_floor = 0x1p-1000; ///< radius that pays for underflow in one operation

template <class N> inline Ball<N> exact_ball(const Bound<N>& x) { return {exactly<N>(x), Bound<N>{}}; }

/// |mid|, within a relative 2^-53.
template <class N> inline Bound<N> size(const Ball<N>& x) { return absolute(leading(x.mid)); }

template <class N> inline Ball<N> operator-(const Ball<N>& x) { return {-x.mid, x.radius}; }

template <class N> inline Ball<N> operator+(const Ball<N>& x, const Ball<N>& y) {
  Ball<N> result{x.mid + y.mid, {}};
  result.radius = (x.radius + y.radius + Rounding<N>::sum * size(result)) * rounded_up + ball_floor;
  return result;
}

template <class N> inline Ball<N> operator-(const Ball<N>& x, const Ball<N>& y) { return x + (-y); }

template <class N> inline Ball<N> operator*(const Ball<N>& x, const Ball<N>& y) {
  Ball<N> result{x.mid * y.mid, {}};
  result.radius = (size(x) * y.radius + x.radius * (size(y) + y.radius) + Rounding<N>::product * size(result)) * rounded_up + ball_floor;
  return result;
}

/// The divisor must not reach zero.
template <class N> inline Ball<N> operator/(const Ball<N>& x, const Ball<N>& y) {
  Ball<N> result{x.mid / y.mid, {}};
  const Bound<N> slope = (x.radius + size(result) * y.radius) / (size(y) - y.radius) * (1 + 0x1p-30);
  result.radius = (slope + Rounding<N>::quotient * size(result)) * rounded_up + ball_floor;
  return result;
}

/// Of a ball of positive numbers with a radius far below its middle.
template <class N> inline Ball<N> square_root(const Ball<N>& x) {
  Ball<N> result{square_root(x.mid), {}};
  result.radius = (x.radius / size(result) + Rounding<N>::quotient * size(result)) * rounded_up + ball_floor;
  return result;
}

template <class N> inline Ball<N> choose(const auto& condition, const Ball<N>& a, const Ball<N>& b) {
  return {choose(condition, a.mid, b.mid), choose(condition, a.radius, b.radius)};
}

inline constexpr double flush_threshold = -650;  ///< exponents below it give zero ...
inline constexpr double flush_radius = 0x1p-900; ///< ... with this radius: e^-650 < 2^-937

/// exp(x). An exponent known worse than within 1 gives [0, 1] below zero and everything above it.
template <class N> inline Ball<N> exponential(const Ball<N>& x) {
  const Bound<N> exponent = leading(x.mid);
  const Bound<N> upper = exponent + x.radius;
  const auto vanishes = upper < flush_threshold;
  const auto usable = (absolute(exponent) <= certified_exp_range) & (x.radius <= 1);
  const Ball<N> zero = exact_ball<N>(Bound<N>{});
  const N argument = choose(usable, x.mid, zero.mid);
  Ball<N> result{exponential(argument), {}};
  result.radius = size(result) * (Rounding<N>::exponential + x.radius * (1 + x.radius) * (1 + 0x1p-30)) * rounded_up;
  result.radius = choose((exponent == 0) & (x.radius == 0), zero.radius, result.radius);
  const Bound<N> infinite = broadcast<Bound<N>>(std::numeric_limits<double>::infinity());
  const Ball<N> unknown{zero.mid, choose(upper <= 0, broadcast<Bound<N>>(1.0), infinite)};
  const Ball<N> flushed{zero.mid, broadcast<Bound<N>>(flush_radius)};
  return choose(vanishes, flushed, choose(usable, result, unknown));
}

} // namespace kdacheck::certified
