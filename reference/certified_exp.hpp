#pragma once
// The exponential in double-double, with a proved relative error.
//
//   exp(x) = 2^e 2^(j/64) (1 + s),   n = 64 e + j = nearest integer to 64 x / ln 2,   s = exp(r) - 1,   |r| < 0.00543
//
// Error, u = 2^-53 (so u^2 = 2^-106):
//   r      ln2/64 = A + B + C with A, B of 36 bits, so that n A and n B are exact (|n| < 2^17). Four additions whose results
//          stay below 0.0055, except that the first ones may carry the rest still to be subtracted (below 2^-20), make
//          4 * 3.01u^2 * 0.0055 < 0.07u^2; C, rounded at 2^-78 - 54, adds n 2^-132 < 2^-115. Both enter exp(r) as they are.
//   s      terms to r^5 in double-double; the rest r^6 (1/720 + ... + r^5/11!) in double with a relative error below
//          8u: 0.00543^6 / 720 * 8u < 2^-54.7 * 2^-50 = 2^-104.7. Truncation r^12/12! < 2^-119. The Horner steps cost at
//          most 9u^2 relative to s, |s| < 0.0055: 0.05u^2, and the innermost, below 12u^2 * 0.0055^4 / 120, nothing.
//   result table entry u^2, product 5u^2 * 0.0055, addition 3.01u^2.
//   Sum: 0.07 + 0.01 + 2.5 + 0.05 + 1 + 0.03 + 3.01 < 8u^2 = 2^-103.

#include "double_double.hpp"

namespace kdacheck::certified {

inline constexpr double certified_exp_error = 0x1p-103; ///< relative, for |x| <= certified_exp_range
inline constexpr double certified_exp_range = 660;      ///< results keep their low word normal

/// What the exponential needs, each entry rounded from 256 bits.
struct ExpTable {
  double power_high[64], power_low[64];       ///< 2^(j/64)
  double step_first, step_second, step_third; ///< ln2 / 64 in three parts, the first two of 36 bits
  double steps_per_unit;                      ///< 64 / ln2
  double inverse_factorial[12];               ///< 1/n!
  double inverse_factorial_low[6];            ///< its second word
};
extern const ExpTable exp_table;

/// exp(x) for |x| <= certified_exp_range.
template <class Real> inline DoubleDouble<Real> certified_exp(const DoubleDouble<Real>& x) {
  const ExpTable& table = exp_table;
  constexpr double magic = 0x1.8p52; // adding it rounds to an integer that the low bits then hold
  const Real shifted = x.high * table.steps_per_unit + magic;
  const Real n = shifted - magic;
  DoubleDouble<Real> r = two_sum(x.high, Real(-n * table.step_first));
  r = r + DoubleDouble<Real>{-n * table.step_second, Real{}};
  r = r + two_product(Real(-n), broadcast<Real>(table.step_third));
  r = r + DoubleDouble<Real>{x.low, Real{}};

  Real tail = broadcast<Real>(table.inverse_factorial[11]);
  for (int order = 10; order >= 6; --order) tail = multiply_add(tail, r.high, broadcast<Real>(table.inverse_factorial[order]));
  DoubleDouble<Real> s = two_sum(broadcast<Real>(table.inverse_factorial[5]), Real(r.high * tail));
  s.low = s.low + table.inverse_factorial_low[5];
  for (int order = 4; order >= 1; --order)
    s = s * r + DoubleDouble<Real>{broadcast<Real>(table.inverse_factorial[order]), broadcast<Real>(table.inverse_factorial_low[order])};
  s = s * r;

  const auto integer = bits_of(shifted) - std::bit_cast<std::int64_t>(magic);
  const auto index = integer & 63;
  const DoubleDouble<Real> power{gather(table.power_high, index), gather(table.power_low, index)};
  const DoubleDouble<Real> result = power * s + power;
  const Real scale = from_bits(((integer >> 6) + 1023) << 52);
  return {result.high * scale, result.low * scale};
}

/// Relative error of rounded_exp.
///   r      two fused steps, each rounded at |r| < 0.0055, and C left out: 2 * 2^-60.5 + 2^-62 < 2^-59.2
///   s      degree 6 leaves out r^7/5040 < 2^-65; Horner's last steps are worth 3 roundings at 0.0055: 2^-59
///   result table entry 2^-106, fused step below 2^-60, then one rounding of the sum: 2^-53.
///   Sum: 2^-53 (1 + 2^-6.2 + 2^-6 + 2^-7 + ...) < 2^-53 (1 + 2^-4)
inline constexpr double rounded_exp_error = 0x1.1p-53;

/// exp(x) for |x| <= certified_exp_range in one word; an eighth of the work.
template <class Real> [[gnu::always_inline]] inline Real rounded_exp(const Real& x) {
  const ExpTable& table = exp_table;
  constexpr double magic = 0x1.8p52;
  const Real shifted = x * table.steps_per_unit + magic;
  const Real n = magic - shifted; // negative
  const Real r = multiply_add(n, broadcast<Real>(table.step_second), multiply_add(n, broadcast<Real>(table.step_first), x));
  Real s = broadcast<Real>(table.inverse_factorial[6]);
  for (int order = 5; order >= 1; --order) s = multiply_add(s, r, broadcast<Real>(table.inverse_factorial[order]));
  s = s * r;
  const auto integer = bits_of(shifted) - std::bit_cast<std::int64_t>(magic);
  const auto index = integer & 63;
  const Real power = gather(table.power_high, index);
  const Real result = power + multiply_add(power, s, gather(table.power_low, index));
  return result * from_bits(((integer >> 6) + 1023) << 52);
}

} // namespace kdacheck::certified
