#include "../certified_exp.hpp"
#include "../multiprecision.hpp"
#include "mpfr_distance.hpp"

#include <catch2/catch.hpp>

#include <random>
#include <vector>

using namespace kdacheck::certified;
using namespace kdacheck::test;

namespace {

/// Arguments where a table-driven exponential may go wrong: both ends of every reduction interval, powers of two, the ends of
/// the range, tiny ones; the worst case for rounding in double (Lefevre and Muller, 2001); then random ones of all sizes.
std::vector<double> arguments() {
  std::vector<double> result{0.0, -0.0, 0x1.9e9cbbfd6080bp-31, -0x1p-1022, 0x1p-1074, 650.0, -650.0, 660.0, -660.0};
  const double step = 0.6931471805599453 / 64;
  for (int n = -60000; n <= 60000; n += 37)
    for (double offset : {0.0, 0.5, -0.5}) {
      const double x = (n + offset) * step;
      result.push_back(x);
      result.push_back(std::nextafter(x, 0));
      result.push_back(static_cast<float>(x));
    }
  for (int exponent = -60; exponent < 10; ++exponent) {
    result.push_back(std::ldexp(1.0, exponent));
    result.push_back(-std::ldexp(1.0, exponent));
  }
  std::mt19937_64 bits(3);
  for (int i = 0; i < 4000; ++i) {
    const double uniform = static_cast<double>(bits() >> 11) * 0x1p-53;
    result.push_back(-std::exp(-30 + 36.4 * uniform));
  }
  return result;
}

class ExactExp {
public:
  const Mpfr& operator()(const double_double& x) {
    mpfr_set_d(x_.get(), x.high, MPFR_RNDN);
    mpfr_add_d(x_.get(), x_.get(), x.low, MPFR_RNDN);
    mpfr_set_prec(value_.get(), 300);
    mpfr_exp(value_.get(), x_.get(), MPFR_RNDN);
    return value_;
  }

private:
  Mpfr x_, value_;
};

} // namespace

TEST_CASE("the double-double exponential keeps its proved error on hard arguments") {
  ExactExp exact;
  double worst = 0, at = 0;
  for (double x : arguments())
    for (double low : {0.0, x * 0x1p-54}) {
      const double_double argument{x, low};
      const double error = relative_distance(exact(argument), certified_exp(argument));
      if (!(error <= worst)) worst = error, at = x;
    }
  CAPTURE(worst, at);
  CHECK(worst <= certified_exp_error);
  CHECK(worst > 0x1p-108); // it is not exact either
}

TEST_CASE("the rounded exponential keeps its proved error on hard arguments") {
  ExactExp exact;
  double worst = 0, at = 0;
  for (double x : arguments()) {
    const double error = relative_distance(exact({x, 0}), {rounded_exp(x), 0});
    if (!(error <= worst)) worst = error, at = x;
  }
  CAPTURE(worst, at);
  CHECK(worst <= rounded_exp_error);
  CHECK(worst > 0x1p-54);
}

TEST_CASE("the cpp_bin_float exponential keeps its proved error against MPFR") {
  std::mt19937_64 bits(11);
  double worst = 0;
  for (int i = 0; i < 300; ++i) {
    const double x = -std::exp(-20 + 26.4 * static_cast<double>(bits() >> 11) * 0x1p-53);
    Mpfr exact(x);
    mpfr_set_prec(exact.get(), 400);
    mpfr_set_d(exact.get(), x, MPFR_RNDN);
    mpfr_exp(exact.get(), exact.get(), MPFR_RNDN);
    const BinFloatNumber computed = exponential(BinFloatNumber(x));
    Mpfr difference;
    mpfr_set_str(difference.get(), computed.str(110, std::ios_base::scientific).c_str(), 10, MPFR_RNDN);
    mpfr_sub(difference.get(), difference.get(), exact.get(), MPFR_RNDN);
    mpfr_div(difference.get(), difference.get(), exact.get(), MPFR_RNDN);
    worst = std::max(worst, std::fabs(mpfr_get_d(difference.get(), MPFR_RNDN)));
  }
  CAPTURE(worst);
  CHECK(worst <= Rounding<BinFloatNumber>::exponential);
}

TEST_CASE("a pack exponential computes in every lane what a double computes") {
  const std::vector<double> all = arguments();
  for (std::size_t first = 0; first + pack_lanes <= all.size(); first += 97 * pack_lanes) {
    DoubleDouble<Pack> x{};
    for (int l = 0; l < pack_lanes; ++l) set_lane(x.high, l, all[first + static_cast<std::size_t>(l)]);
    const DoubleDouble<Pack> packed = certified_exp(x);
    const Pack rounded = rounded_exp(x.high);
    for (int l = 0; l < pack_lanes; ++l) {
      const double_double single = certified_exp(double_double{x.high[l], 0});
      REQUIRE((packed.high[l] == single.high && packed.low[l] == single.low));
      REQUIRE(rounded[l] == rounded_exp(x.high[l]));
    }
  }
}

TEST_CASE("log(1 + z) lies within its radius, and the radius is relative, down to the smallest z") {
  std::mt19937_64 bits(5);
  double worst_radius = 0;
  int outside = 0;
  for (int i = 0; i < 4000; ++i) {
    const double uniform = static_cast<double>(bits() >> 11) * 0x1p-53;
    const double z = i < 200 ? i / 199.0 : i % 3 == 0 ? std::exp(-600 * uniform) : uniform;
    const Ball<double_double> result = log_one_plus(exact_ball<double_double>(z));
    Mpfr exact(z);
    mpfr_set_prec(exact.get(), 1200);
    mpfr_set_d(exact.get(), z, MPFR_RNDN);
    mpfr_log1p(exact.get(), exact.get(), MPFR_RNDN);
    const double error = relative_distance(exact, result.mid) * result.mid.high;
    if (!(error <= result.radius)) ++outside;
    if (z > 0x1p-800) worst_radius = std::max(worst_radius, result.radius / result.mid.high);
  }
  CHECK(outside == 0);
  CHECK(worst_radius < 0x1p-98);
}
