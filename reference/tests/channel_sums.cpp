// Double-double products, updates and sums as the forward recurrence uses them, against exact arithmetic.

#include "../channel_sums.hpp"
#include "mpfr_distance.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

using namespace kdacheck::certified;
using namespace kdacheck::test;

namespace {

using Errors = ChannelErrors<double_double>;
constexpr int trials = 40000;

class PairSource {
public:
  double real(int spread) { return std::ldexp(2 * uniform() - 1, static_cast<int>(bits_() % static_cast<unsigned>(spread)) - spread / 2); }
  /// Normalised; the second word as large as it may be in half of the cases.
  double_double pair(int spread) {
    const double high = real(spread);
    return two_sum(high, high * 0x1p-53 * (one_in(2) ? 1 : 2 * uniform() - 1));
  }
  bool one_in(unsigned n) { return bits_() % n == 0; }

private:
  double uniform() { return static_cast<double>(bits_() >> 11) * 0x1p-53; }
  std::mt19937_64 bits_{20261130};
};

/// |x - exact| / scale in units of 2^-106.
double units_of(const Mpfr& exact, const double_double& x, double scale) {
  Mpfr difference(x);
  mpfr_sub(difference.get(), difference.get(), exact.get(), MPFR_RNDA);
  return std::fabs(mpfr_get_d(difference.get(), MPFR_RNDA)) * 0x1p106 / scale;
}

void multiply(Mpfr& product, const double_double& a, const double_double& b) {
  const Mpfr x(a), y(b);
  mpfr_mul(product.get(), x.get(), y.get(), MPFR_RNDN);
}

bool normalised(const double_double& x) { return x.high + x.low == x.high; }

} // namespace

TEST_CASE("products with loose second words keep their proved error, and are as loose as said") {
  PairSource source;
  double worst = 0, loosest = 0, worst_of_loose = 0, loosest_of_loose = 0;
  for (int trial = 0; trial < trials; ++trial) {
    const double_double a = source.pair(40), b = source.pair(40), c = source.pair(40);
    Mpfr exact;
    multiply(exact, a, b);
    const double_double once = scaled(a, b);
    worst = std::max(worst, units_of(exact, once, std::fabs(once.high)));
    loosest = std::max(loosest, std::fabs(once.low / once.high) * 0x1p53);
    multiply(exact, once, c);
    const double_double twice = scaled(once, c);
    worst_of_loose = std::max(worst_of_loose, units_of(exact, twice, std::fabs(twice.high)));
    loosest_of_loose = std::max(loosest_of_loose, std::fabs(twice.low / twice.high) * 0x1p53);
  }
  INFO(worst << ' ' << loosest << ' ' << worst_of_loose << ' ' << loosest_of_loose);
  CHECK(worst <= 6.001);
  CHECK(loosest <= 3.001);
  CHECK(worst_of_loose <= 10.001);
  CHECK(loosest_of_loose <= 5.001);
  // the trials come near: a product that forgot a second word would be wrong by 2^53 units
  CHECK(worst > 1);
  CHECK(loosest > 1.5);
}

TEST_CASE("updates are normalised and keep their proved error, also where everything cancels") {
  PairSource source;
  double worst = 0;
  for (int trial = 0; trial < trials; ++trial) {
    const double_double a = source.pair(30), b = source.pair(30);
    double_double x = scaled(source.pair(30), source.pair(30));
    if (source.one_in(2)) { // close to - a b, as loose as a decayed entry may be
      const double_double product = scaled(a, b);
      x = {-product.high * (source.one_in(2) ? 1 : 1 + 0x1p-52 * source.real(8)), 0};
      x.low = x.high * 0x1p-53 * 3 * source.real(2);
    }
    Mpfr exact, sum(x);
    multiply(exact, a, b);
    const double size = std::fabs(a.high * b.high);
    mpfr_add(exact.get(), exact.get(), sum.get(), MPFR_RNDN);
    const double_double result = updated(x, a, b);
    if (!normalised(result)) FAIL(result.high << ' ' << result.low);
    const double allowed = Errors::written() * size + Errors::added() * (std::fabs(x.high) + size);
    worst = std::max(worst, units_of(exact, result, allowed * 0x1p106));
  }
  INFO(worst);
  CHECK(worst <= 1);
  CHECK(worst > 0.1);
}

TEST_CASE("sums over channels keep their proved error and are the same in every lane") {
  PairSource source;
  double worst = 0;
  for (int trial = 0; trial < trials / 20; ++trial) {
    const std::int64_t K = 4 * (1 + static_cast<std::int64_t>(trial % 33));
    std::vector<double_double> a, b;
    for (std::int64_t i = 0; i < K; ++i) {
      a.push_back(source.pair(6));
      b.push_back(scaled(source.pair(6), source.pair(6)));
      if (i % 2 && source.one_in(2))
        a[static_cast<std::size_t>(i)] = -a[static_cast<std::size_t>(i - 1)],
        b[static_cast<std::size_t>(i)] = b[static_cast<std::size_t>(i - 1)];
    }
    Mpfr exact, product;
    double sizes = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      multiply(product, a[i], b[i]);
      mpfr_add(exact.get(), exact.get(), product.get(), MPFR_RNDN);
      sizes += std::fabs(a[i].high * b[i].high);
    }
    const auto sum = [&]<class N>(auto number) {
      return sum_by_chains<Dot<N>, N>(
          K, [&](std::int64_t i, Dot<N>& dot) { dot.add(number(a[static_cast<std::size_t>(i)]), number(b[static_cast<std::size_t>(i)])); });
    };
    const double_double result = sum.template operator()<double_double>([](const double_double& x) { return x; });
    const auto packed = sum.template operator()<DoubleDouble<Pack>>([](const double_double& x) {
      return DoubleDouble<Pack>{broadcast<Pack>(x.high), broadcast<Pack>(x.low)};
    });
    if (!normalised(result)) FAIL(result.high << ' ' << result.low);
    worst = std::max(worst, units_of(exact, result, Errors::read(K) * sizes * 0x1p106));
    for (int l = 0; l < pack_lanes; ++l)
      if (packed.high[l] != result.high || packed.low[l] != result.low) FAIL("lane " << l << " of K " << K);
  }
  INFO(worst);
  CHECK(worst <= 1);
  CHECK(worst > 0.002); // roundings rarely agree: far from the bound, yet a lost second word is 10^15 of it
}
