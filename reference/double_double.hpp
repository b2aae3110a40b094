#pragma once
// Numbers of 106 bits as unevaluated sums of two doubles (or two packs of doubles).
//
// Algorithms and relative error bounds, u = 2^-53, round to nearest, no underflow: Joldes, Muller, Popescu, "Tight and
// rigorous error bounds for basic building blocks of double-word arithmetic", ACM TOMS 44 (2017); checked formally and
// amended by Muller and Rideau, ACM TOMS 48 (2022). They hold only if every operation is rounded once, as written.

#include "pack.hpp"

namespace kdacheck::certified {

/// high + low with |low| <= ulp(high) / 2.
template <class Real> struct DoubleDouble {
  Real high{};
  Real low{};
};

using double_double = DoubleDouble<double>;

inline constexpr double double_unit = 0x1p-53;                      ///< u
inline constexpr double double_double_sum_error = 3.01 * 0x1p-106;  ///< of x + y, relative: 3u^2 / (1 - 4u)
inline constexpr double double_double_product_error = 5 * 0x1p-106; ///< of x y, relative: 5u^2
/// Of x / y and of the square root. Newton's step from a double leaves (relative) at most 2u^2 of truncation; its residual
/// and the quotient that corrects it are rounded a few times at relative size 2u, each worth at most 2u^2: below 32u^2.
inline constexpr double double_double_quotient_error = 32 * 0x1p-106;

/// a + b = high + low exactly (Knuth).
template <class Real> [[gnu::always_inline]] inline DoubleDouble<Real> two_sum(const Real& a, const Real& b) {
  const Real sum = a + b;
  const Real virtual_b = sum - a;
  return {sum, (a - (sum - virtual_b)) + (b - virtual_b)};
}

/// a + b = high + low exactly, for |a| >= |b| or a = 0 (Dekker).
template <class Real> [[gnu::always_inline]] inline DoubleDouble<Real> fast_two_sum(const Real& a, const Real& b) {
  const Real sum = a + b;
  return {sum, b - (sum - a)};
}

/// a b = high + low exactly, unless it underflows.
template <class Real> [[gnu::always_inline]] inline DoubleDouble<Real> two_product(const Real& a, const Real& b) {
  const Real product = a * b;
  return {product, multiply_add(a, b, -product)};
}

template <class Real> [[gnu::always_inline]] inline DoubleDouble<Real> operator-(const DoubleDouble<Real>& x) { return {-x.high, -x.low}; }

/// AccurateDWPlusDW.
template <class Real> [[gnu::always_inline]] inline DoubleDouble<Real> operator+(const DoubleDouble<Real>& x, const DoubleDouble<Real>& y) {
  const DoubleDouble<Real> high = two_sum(x.high, y.high);
  const DoubleDouble<Real> low = two_sum(x.low, y.low);
  const DoubleDouble<Real> middle = fast_two_sum(high.high, Real(high.low + low.high));
  return fast_two_sum(middle.high, Real(low.low + middle.low));
}

template <class Real> [[gnu::always_inline]] inline DoubleDouble<Real> operator-(const DoubleDouble<Real>& x, const DoubleDouble<Real>& y) {
  return x + (-y);
}

/// DWTimesDW2.
template <class Real> [[gnu::always_inline]] inline DoubleDouble<Real> operator*(const DoubleDouble<Real>& x, const DoubleDouble<Real>& y) {
  const DoubleDouble<Real> product = two_product(x.high, y.high);
  const Real cross = multiply_add(x.low, y.high, Real(x.high * y.low));
  return fast_two_sum(product.high, Real(product.low + cross));
}

template <class Real> [[gnu::always_inline]] inline DoubleDouble<Real> operator/(const DoubleDouble<Real>& x, const DoubleDouble<Real>& y) {
  const Real first = x.high / y.high;
  const DoubleDouble<Real> remainder = x - y * DoubleDouble<Real>{first, Real{}};
  return fast_two_sum(first, Real(remainder.high / y.high));
}

/// Of a positive number.
template <class Real> [[gnu::always_inline]] inline DoubleDouble<Real> square_root(const DoubleDouble<Real>& x) {
  const Real first = square_root(x.high);
  const DoubleDouble<Real> remainder = x - two_product(first, first);
  return fast_two_sum(first, Real(remainder.high / (2 * first)));
}

template <class Real>
[[gnu::always_inline]] inline DoubleDouble<Real> multiply_add(const DoubleDouble<Real>& a, const DoubleDouble<Real>& b,
                                                              const DoubleDouble<Real>& c) {
  return a * b + c;
}

template <class Real>
[[gnu::always_inline]] inline DoubleDouble<Real> choose(const auto& condition, const DoubleDouble<Real>& a, const DoubleDouble<Real>& b) {
  return {choose(condition, a.high, b.high), choose(condition, a.low, b.low)};
}

/// Sum of the lanes as a balanced tree.
[[gnu::always_inline]] inline double_double sum_lanes(const double_double& x) { return x; }
[[gnu::always_inline]] inline double_double sum_lanes(const DoubleDouble<Pack>& x) {
  const auto at = [&](int l) { return double_double{x.high[l], x.low[l]}; };
  return ((at(0) + at(1)) + (at(2) + at(3))) + ((at(4) + at(5)) + (at(6) + at(7)));
}

// Each word is split and put together as a pack is: what lane_sums needs.
[[gnu::always_inline]] inline DoubleDouble<HalfPack> lower_half(const DoubleDouble<Pack>& x) {
  return {lower_half(x.high), lower_half(x.low)};
}
[[gnu::always_inline]] inline DoubleDouble<HalfPack> upper_half(const DoubleDouble<Pack>& x) {
  return {upper_half(x.high), upper_half(x.low)};
}
[[gnu::always_inline]] inline DoubleDouble<Pack> joined(const DoubleDouble<HalfPack>& x, const DoubleDouble<HalfPack>& y) {
  return {joined(x.high, y.high), joined(x.low, y.low)};
}
[[gnu::always_inline]] inline DoubleDouble<HalfPack> even_lanes(const DoubleDouble<HalfPack>& x, const DoubleDouble<HalfPack>& y) {
  return {even_lanes(x.high, y.high), even_lanes(x.low, y.low)};
}
[[gnu::always_inline]] inline DoubleDouble<HalfPack> odd_lanes(const DoubleDouble<HalfPack>& x, const DoubleDouble<HalfPack>& y) {
  return {odd_lanes(x.high, y.high), odd_lanes(x.low, y.low)};
}
[[gnu::always_inline]] inline DoubleDouble<HalfPack> lower_lanes(const DoubleDouble<HalfPack>& x, const DoubleDouble<HalfPack>& y) {
  return {lower_lanes(x.high, y.high), lower_lanes(x.low, y.low)};
}
[[gnu::always_inline]] inline DoubleDouble<HalfPack> upper_lanes(const DoubleDouble<HalfPack>& x, const DoubleDouble<HalfPack>& y) {
  return {upper_lanes(x.high, y.high), upper_lanes(x.low, y.low)};
}

} // namespace kdacheck::certified
