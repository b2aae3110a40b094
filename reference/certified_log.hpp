#pragma once
// log(1 + z) for z in [0, 1], in balls: without cancellation for small z, what softplus needs.
//
//   log(1 + z) = log(1 + c) + 2 artanh(s),   s = (z - c) / (2 + z + c),   artanh(s) = s (1 + s^2/3 + s^4/5 + ...)
//
// Multiprecision takes c = 0, |s| <= 1/3. Double-double takes c = j/32, the nearest to z, with log(1 + c) from a table:
// |s| <= 1/128, and z < 1/64 still has c = 0, so that small results keep their relative accuracy. Terms left out are below
// 9/8 of the first of them.

#include "ball.hpp"

#include <vector>

namespace kdacheck::certified {

/// Rounded from 256 bits: each within u^2 of its size.
struct LogTable {
  double high[33], low[33];                         ///< log(1 + j/32)
  double inverse_odd_high[10], inverse_odd_low[10]; ///< 1 / (2 i + 1)
};
extern const LogTable log_table;

/// 2 artanh(s) for |s| <= bound; `inverse_odd(i)` is a ball of 1 / (2 i + 1).
template <class N> inline Ball<N> twice_artanh(const Ball<N>& s, double bound, auto inverse_odd) {
  const Ball<N> square = s * s;
  int terms = 1;
  for (double left_out = bound * bound; left_out > Rounding<N>::sum / 4; left_out *= bound * bound) ++terms;
  Ball<N> sum = inverse_odd(terms - 1);
  for (int i = terms - 2; i >= 0; --i) sum = sum * square + inverse_odd(i);
  sum.radius = sum.radius + Rounding<N>::sum; // 9/8 bound^(2 terms) / (2 terms + 1), of a sum of 1 at least
  return exact_ball<N>(broadcast<Bound<N>>(2.0)) * s * sum;
}

template <class N> inline Ball<N> log_one_plus(const Ball<N>& z) {
  const Ball<N> two = exact_ball<N>(broadcast<Bound<N>>(2.0));
  if constexpr (Multiprecision<N>) {
    const Ball<N> one = exact_ball<N>(1.0);
    return twice_artanh(z / (two + z), 1.0 / 3, [&](int i) { return one / exact_ball<N>(2.0 * i + 1); });
  } else {
    using Real = Bound<N>;
    constexpr double magic = 0x1.8p52;
    const Real shifted = leading(z.mid) * 32 + magic;
    const auto index = bits_of(shifted) - std::bit_cast<std::int64_t>(magic);
    const Ball<N> c = exact_ball<N>(Real((shifted - magic) * 0x1p-5));
    const N log_c{gather(log_table.high, index), gather(log_table.low, index)};
    const Ball<N> s = (z - c) / (two + z + c);
    const auto inverse_odd = [](int i) -> Ball<N> {
      const Real high = broadcast<Real>(log_table.inverse_odd_high[i]), low = broadcast<Real>(log_table.inverse_odd_low[i]);
      return {{high, low}, high * Rounding<N>::sum};
    };
    return Ball<N>{log_c, leading(log_c) * Rounding<N>::sum} + twice_artanh(s, 1.0 / 127, inverse_odd);
  }
}

} // namespace kdacheck::certified
