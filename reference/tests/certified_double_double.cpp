#include "../double_double.hpp"
#include "mpfr_distance.hpp"

#include <catch2/catch.hpp>

#include <random>

using namespace kdacheck::certified;
using namespace kdacheck::test;

namespace {

/// Normalised pairs: full, cancelling, with gaps between the words, short.
class PairSource {
public:
  double real(int spread) { return std::ldexp(2 * uniform() - 1, static_cast<int>(bits_() % static_cast<unsigned>(spread)) - spread / 2); }
  double_double pair(int spread = 80) {
    const double high = bits_() % 8 ? real(spread) : std::ldexp(1.0, static_cast<int>(bits_() % 40) - 20);
    const double low = bits_() % 8 ? high * 0x1p-53 * (2 * uniform() - 1) * std::ldexp(1.0, -static_cast<int>(bits_() % 3) * 20) : 0;
    return two_sum(high, low);
  }
  /// A pair close to -x.
  double_double opposite(const double_double& x) { return two_sum(-x.high, -x.low * (1 + 0x1p-10 * uniform())); }
  bool one_in(unsigned n) { return bits_() % n == 0; }

private:
  double uniform() { return static_cast<double>(bits_() >> 11) * 0x1p-53; }
  std::mt19937_64 bits_{20260101};
};

constexpr int trials = 100000;

} // namespace

TEST_CASE("two_sum and two_product lose nothing") {
  PairSource source;
  for (int trial = 0; trial < trials; ++trial) {
    const double a = source.real(200), b = source.real(200);
    const double_double sum = two_sum(a, b), product = two_product(a, b);
    Mpfr exact_sum(a), exact_product(a);
    mpfr_add_d(exact_sum.get(), exact_sum.get(), b, MPFR_RNDN);
    mpfr_mul_d(exact_product.get(), exact_product.get(), b, MPFR_RNDN);
    if (relative_distance(exact_sum, sum) != 0 || relative_distance(exact_product, product) != 0) FAIL("a " << a << " b " << b);
  }
  SUCCEED();
}

TEST_CASE("double-double operations keep their proved relative error") {
  PairSource source;
  double worst_sum = 0, worst_product = 0, worst_quotient = 0, worst_root = 0;
  for (int trial = 0; trial < trials; ++trial) {
    const double_double x = source.pair();
    const double_double y = source.one_in(4) ? source.opposite(x) : source.pair();
    const Mpfr wide_x(x), wide_y(y);
    Mpfr exact;
    mpfr_add(exact.get(), wide_x.get(), wide_y.get(), MPFR_RNDN);
    worst_sum = std::max(worst_sum, relative_distance(exact, x + y));
    mpfr_mul(exact.get(), wide_x.get(), wide_y.get(), MPFR_RNDN);
    worst_product = std::max(worst_product, relative_distance(exact, x * y));
    mpfr_div(exact.get(), wide_x.get(), wide_y.get(), MPFR_RNDN);
    worst_quotient = std::max(worst_quotient, relative_distance(exact, x / y));
    const double_double positive = x.high < 0 ? -x : x;
    mpfr_abs(exact.get(), wide_x.get(), MPFR_RNDN);
    mpfr_sqrt(exact.get(), exact.get(), MPFR_RNDN);
    worst_root = std::max(worst_root, relative_distance(exact, square_root(positive)));
  }
  CHECK(worst_sum <= double_double_sum_error);
  CHECK(worst_product <= double_double_product_error);
  CHECK(worst_quotient <= double_double_quotient_error);
  CHECK(worst_root <= double_double_quotient_error);
  // the trials come near the bounds: an operation that forgot its last correction would not pass
  CHECK(worst_sum > 0.2 * double_double_sum_error);
  CHECK(worst_product > 0.2 * double_double_product_error);
}

TEST_CASE("a pack computes in every lane what a double computes") {
  PairSource source;
  for (int trial = 0; trial < 2000; ++trial) {
    std::array<double_double, pack_lanes> x, y;
    DoubleDouble<Pack> packed_x, packed_y;
    for (int l = 0; l < pack_lanes; ++l) {
      const auto at = static_cast<std::size_t>(l);
      x[at] = source.pair();
      y[at] = source.pair();
      set_lane(packed_x.high, l, x[at].high), set_lane(packed_x.low, l, x[at].low);
      set_lane(packed_y.high, l, y[at].high), set_lane(packed_y.low, l, y[at].low);
    }
    const DoubleDouble<Pack> sum = packed_x + packed_y, product = packed_x * packed_y, quotient = packed_x / packed_y;
    for (int l = 0; l < pack_lanes; ++l) {
      const auto at = static_cast<std::size_t>(l);
      REQUIRE((sum.high[l] == (x[at] + y[at]).high && sum.low[l] == (x[at] + y[at]).low));
      REQUIRE((product.high[l] == (x[at] * y[at]).high && product.low[l] == (x[at] * y[at]).low));
      REQUIRE((quotient.high[l] == (x[at] / y[at]).high && quotient.low[l] == (x[at] / y[at]).low));
    }
  }
}
