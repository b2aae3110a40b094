#pragma once
// The number types of Boost.Multiprecision in the certified recurrence: MPFR at any precision, and cpp_bin_float at 256 bits,
// whose arithmetic shares nothing with MPFR. Included by the two files that instantiate them, and by their tests.

#include "segment.hpp"

#include <boost/multiprecision/cpp_bin_float.hpp>
#include <boost/multiprecision/mpfr.hpp>

#include <algorithm>

namespace kdacheck::certified {

/// Bounds are doubles: a unit roundoff below this would underflow in them.
inline constexpr double least_unit = 0x1p-900;

using MpfrNumber = boost::multiprecision::number<boost::multiprecision::mpfr_float_backend<0>, boost::multiprecision::et_off>;
using BinFloatNumber =
    boost::multiprecision::number<boost::multiprecision::cpp_bin_float<256, boost::multiprecision::digit_base_2, void, std::int32_t>,
                                  boost::multiprecision::et_off>;

template <> inline constexpr bool is_multiprecision<MpfrNumber> = true;
template <> inline constexpr bool is_multiprecision<BinFloatNumber> = true;

/// MPFR rounds every operation, the exponential included, correctly. The precision is that of the running thread.
template <> struct Rounding<MpfrNumber> {
  using Bound = double;
  static inline thread_local double sum = 0;
  static inline thread_local double product = 0;
  static inline thread_local double fused = 0;
  static inline thread_local double quotient = 0;
  static inline thread_local double exponential = 0;
  static MpfrNumber exp(const MpfrNumber& x) { return boost::multiprecision::exp(x); }
};

/// Sets the precision of this thread's numbers to `bits` at least, and back.
class MpfrPrecision {
public:
  explicit MpfrPrecision(int bits) : digits_before_(MpfrNumber::thread_default_precision()), unit_before_(Rounding<MpfrNumber>::sum) {
    MpfrNumber::thread_default_precision(static_cast<unsigned>((bits * 301 + 999) / 1000));
    set_unit(std::max(std::ldexp(1.0, -bits), least_unit));
  }
  ~MpfrPrecision() {
    MpfrNumber::thread_default_precision(digits_before_);
    set_unit(unit_before_);
  }
  MpfrPrecision(const MpfrPrecision&) = delete;
  MpfrPrecision& operator=(const MpfrPrecision&) = delete;

private:
  static void set_unit(double unit) {
    using Unit = Rounding<MpfrNumber>;
    Unit::sum = Unit::product = Unit::fused = Unit::quotient = Unit::exponential = unit;
  }
  unsigned digits_before_;
  double unit_before_;
};

inline constexpr int bin_float_bits = 256;

/// cpp_bin_float rounds + - * / and the square root correctly; its exponential is not specified, so here is one:
///   exp(x) = 2^n exp(s)^256,  n = nearest integer to x / ln 2,  s = (x - n ln 2) / 256,  |s| < 0.0014
/// ln 2 is given within 2^-256, so s is wrong by n 2^-264 + 2^-256 |r| 2^-8 < 2^-254, exp(s) as much (relative). 28 terms of
/// the series leave out s^28 / 28! < 2^-362; Horner's sum costs below 3 roundings as its terms fall by 700. Eight squarings
/// double the relative error and add a rounding each: 256 (2^-254 + 3 2^-256) + 256 2^-256 < 2^-244.
template <> struct Rounding<BinFloatNumber> {
  using Bound = double;
  static constexpr double sum = 0x1p-256, product = sum, fused = sum, quotient = sum, exponential = 0x1p-244;
  static BinFloatNumber exp(const BinFloatNumber& x) {
    static const BinFloatNumber ln2(
        "0.6931471805599453094172321214581765680755001343602552541206800094933936219696947156058633269964186875420");
    const int n = static_cast<int>(std::nearbyint(leading(x) / 0.6931471805599453));
    const BinFloatNumber s = ldexp(BinFloatNumber(x - n * ln2), -8);
    BinFloatNumber sum_of_terms(1);
    for (int order = 28; order >= 1; --order) sum_of_terms = 1 + s * sum_of_terms / order;
    for (int squaring = 0; squaring < 8; ++squaring) sum_of_terms = sum_of_terms * sum_of_terms;
    return ldexp(sum_of_terms, n);
  }
};

struct MpfrArithmetic {
  using Precision = MpfrPrecision;
  using Scalar = MpfrNumber;
  using Column = MpfrNumber;
  using Input = MpfrNumber;
  using Sum = MpfrNumber;
};
struct BinFloatArithmetic {
  using Precision = FixedPrecision;
  using Scalar = BinFloatNumber;
  using Column = BinFloatNumber;
  using Input = BinFloatNumber;
  using Sum = BinFloatNumber;
};

} // namespace kdacheck::certified
