#pragma once
// What the forward recurrence multiplies and adds up over channels, with its errors. In most number types that is one
// operation after the other. Double-double numbers save two thirds of their additions where a result is added up next: the
// second words of products stay as they come, and those of a short sum are added up on the side (a dot product with
// compensation: Ogita, Rump, Oishi, "Accurate sum and dot product", SIAM J. Sci. Comput. 26 (2005)).
//
// Errors of the double-double forms, u = 2^-53. A pair is called `loose by c` if |low| <= c u |high|; a normalised one is
// loose by 1. Terms of higher order are covered by the second decimal.
//   product of a pair loose by c and a normalised one: p = fl(a b) of the leading words; its error e0 <= u |p| is exact; two
//     fused steps add a.high b.low (<= u |p|) and a.low b.high (<= c u |p|): results below 2 u |p| and (2 + c) u |p|, each
//     rounded once; a.low b.low <= c u^2 |p| is left out. So it is loose by 2 + c and wrong by (4 + 2 c) u^2 |p|.
//       c = 1: loose by 3, wrong by 6 u^2.   c = 3: loose by 5, wrong by 10 u^2.
//   sum over a group of 16 rows (chains of four, then two levels): leading words are added exactly, as each sum's own error
//     goes into the second word. A term passes at most 6 such sums (errors: 6 u sum |p|), so all second words together are
//     below (6 + 5) u sum |p|; each passes at most 1 + 4 + 2 2 = 9 additions: 99 u^2 sum |p|, with the products 109 u^2.
//     Groups are normalised, then added up as double-double numbers.
//   x + a b with x loose by 3, a and b normalised: leading words exactly, with error t <= u (|x| + |p|); fl(x.low + p.low) and
//     fl(that + t) have sizes 3 u (|x| + |p|) and 4 u (|x| + |p|): wrong by 7 u^2 (|x| + |p|) and by the product's 6 u^2 |p|.
//     The result is normalised exactly.

#include "rounding.hpp"

#include <utility>

namespace kdacheck::certified {

/// Sums over K channels run in groups of 16 rows: four partial sums of four, then two levels, then the total. No term
/// passes more additions than this.
inline constexpr std::int64_t rows_per_group = 16;
inline constexpr double channel_groups(std::int64_t K) { return static_cast<double>((K + rows_per_group - 1) / rows_per_group); }
inline constexpr double channel_sum_depth(std::int64_t K) { return 4 + 2 + channel_groups(K); }

/// Errors of the operations below, for a number type N.
template <class N> struct ChannelErrors {
  using Unit = Rounding<N>;
  static constexpr bool of_the_sum = true;         ///< an update's `added` is relative to its result, not to its terms
  static double scaled() { return Unit::product; } ///< of scaled(x, a), relative
  static double written() { return Unit::fused; }  ///< of updated(x, a, b), relative to a b
  static double added() { return Unit::sum; }      ///< of updated(x, a, b), see of_the_sum
  static double read(std::int64_t K) { return Unit::fused + channel_sum_depth(K) * Unit::sum; } ///< of a Dot, relative to the sum of sizes
};
template <class Real> struct ChannelErrors<DoubleDouble<Real>> {
  static constexpr double square = 0x1p-106 * 1.001;
  static constexpr bool of_the_sum = false;
  static constexpr double scaled() { return 6 * square; }
  static constexpr double written() { return 6 * square; }
  static constexpr double added() { return 7 * square; }
  static constexpr double read(std::int64_t K) { return 109 * square + channel_groups(K) * double_double_sum_error; }
};

/// x a: for Dot and updated() alone.
template <class N> [[gnu::always_inline]] inline N scaled(const N& x, const N& a) { return x * a; }
template <class Real> [[gnu::always_inline]] inline DoubleDouble<Real> scaled(const DoubleDouble<Real>& x, const DoubleDouble<Real>& a) {
  const DoubleDouble<Real> product = two_product(x.high, a.high);
  return {product.high, multiply_add(x.low, a.high, multiply_add(x.high, a.low, product.low))};
}

/// x + a b, normalised.
template <class N> [[gnu::always_inline]] inline N updated(const N& x, const N& a, const N& b) { return multiply_add(a, b, x); }
template <class Real>
[[gnu::always_inline]] inline DoubleDouble<Real> updated(const DoubleDouble<Real>& x, const DoubleDouble<Real>& a,
                                                         const DoubleDouble<Real>& b) {
  const DoubleDouble<Real> product = scaled(a, b), high = two_sum(x.high, product.high);
  return two_sum(high.high, Real((x.low + product.low) + high.low));
}

/// A sum of products over a few rows.
template <class N> struct Dot {
  N sum{};
  [[gnu::always_inline]] void add(const N& a, const N& b) { sum = multiply_add(a, b, sum); }
  [[gnu::always_inline]] friend Dot operator+(const Dot& x, const Dot& y) { return {x.sum + y.sum}; }
  [[gnu::always_inline]] friend N closed(const Dot& x) { return x.sum; }
};
template <class Real> struct Dot<DoubleDouble<Real>> {
  Real high{}, low{};
  [[gnu::always_inline]] void add(const DoubleDouble<Real>& a, const DoubleDouble<Real>& b) {
    const DoubleDouble<Real> product = scaled(b, a), sum = two_sum(high, product.high);
    high = sum.high;
    low = low + (sum.low + product.low);
  }
  [[gnu::always_inline]] friend Dot operator+(const Dot& x, const Dot& y) {
    const DoubleDouble<Real> sum = two_sum(x.high, y.high);
    return {sum.high, (x.low + y.low) + sum.low};
  }
  [[gnu::always_inline]] friend DoubleDouble<Real> closed(const Dot& x) { return two_sum(x.high, x.low); }
};

/// f(0) ... f(count - 1) with constants, so that what they index stays in registers.
template <std::size_t count> [[gnu::always_inline]] inline void each(auto f) {
  [&]<std::size_t... c>(std::index_sequence<c...>) __attribute__((always_inline)) { (f(std::integral_constant<std::size_t, c>{}), ...); }
  (std::make_index_sequence<count>{});
}

/// Rows of a sum in one chain after the other, so that few sums are alive at a time. K is a multiple of 4. A Chain is what
/// the rows of a group are added up in: it knows operator+ and closed(chain), which is a Total.
template <class Chain, class Total> [[gnu::always_inline]] inline Total sum_by_chains(std::int64_t K, auto row) {
  Total total{};
  const auto group = [&](auto chain) __attribute__((always_inline)) {
    Chain lower = chain(0);
    lower = lower + chain(1);
    Chain upper = chain(2);
    upper = upper + chain(3);
    total = total + closed(lower + upper);
  };
  std::int64_t begin = 0;
  for (; begin + rows_per_group <= K; begin += rows_per_group)
    group([&](std::int64_t offset) __attribute__((always_inline)) {
      Chain sum{};
      row(begin + offset, sum);
      row(begin + offset + 4, sum);
      row(begin + offset + 8, sum);
      row(begin + offset + 12, sum);
      return sum;
    });
  if (begin < K)
    group([&](std::int64_t offset) __attribute__((always_inline)) {
      Chain sum{};
      for (std::int64_t i = begin + offset; i < K; i += 4) row(i, sum);
      return sum;
    });
  return total;
}

} // namespace kdacheck::certified
