#include "../cases/random.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <vector>

using namespace kdacheck;

namespace {

/// Distance in units in the last place of fp64.
double ulps(double x, double exact) {
  if (x == exact) return 0;
  return std::fabs(x - exact) / (std::nextafter(std::fabs(exact), INFINITY) - std::fabs(exact));
}

} // namespace

TEST_CASE("exp, log, log1p and expm1 are within four units in the last place") {
  for (int i = 0; i < 200'000; ++i) {
    const double u = Stream(5, Draw::recipe, 0, 0, static_cast<std::uint32_t>(i)).uniform(0);
    const double x = (u - 0.5) * 1400, y = std::ldexp(1 + u, i % 2000 - 1000), z = std::ldexp(u, -(i % 60)) * (i % 2 ? 1 : -0.999);
    REQUIRE(ulps(portable::exp(x), std::exp(x)) <= 4);
    REQUIRE(ulps(portable::log(y), std::log(y)) <= 4);
    REQUIRE(ulps(portable::expm1(z), std::expm1(z)) <= 4);
    if (z > -0.25) REQUIRE(ulps(portable::log1p(z), std::log1p(z)) <= 4);
  }
  CHECK(portable::exp(-1000) == 0);
  CHECK(portable::exp(1000) == INFINITY);
  CHECK(portable::exp(-740) == Approx(std::exp(-740)).margin(0x1p-1073));
  CHECK(portable::exp(709.5) == Approx(std::exp(709.5)).epsilon(1e-15));
  CHECK(portable::log(0) == -INFINITY);
  CHECK(portable::log(0x1p-1070) == Approx(std::log(0x1p-1070)).epsilon(1e-15));
}

TEST_CASE("cosine and sine of turns are those of the angle") {
  for (int i = 0; i < 100'000; ++i) {
    const double u = (i + 0.5) / 100'000;
    const auto [cosine, sine] = portable::cos_sin_turns(u);
    REQUIRE(std::fabs(cosine - std::cos(2 * M_PI * u)) < 1e-15);
    REQUIRE(std::fabs(sine - std::sin(2 * M_PI * u)) < 1e-15);
  }
}

TEST_CASE("sigmoid and softplus undo logit and inverse softplus") {
  for (double x = -30; x <= 30; x += 0.01) {
    // The sigmoid of a large x is near 1 and known to 2^-53 of that, which is e^x 2^-53 of 1 - sigmoid.
    CHECK(std::fabs(portable::logit(portable::sigmoid(x)) - x) < 4e-16 * (4 + std::fabs(x) + std::exp(x)));
    CHECK(portable::inverse_softplus(portable::softplus(x)) == Approx(x).epsilon(1e-13).margin(1e-13));
  }
}

TEST_CASE("the generator gives the published words of Philox4x32-10") {
  // Known answers of the authors' test vectors: counter and key all zero; all ones (the draw's byte is the counter's top).
  CHECK(Stream(0, static_cast<Draw>(0)).bits(0) == 0x6627e8d5u);
  CHECK(Stream(0, static_cast<Draw>(0)).bits(1) == 0xe169c58du);
  CHECK(Stream(0, static_cast<Draw>(0)).bits(2) == 0xbc57ac4cu);
  CHECK(Stream(0, static_cast<Draw>(0)).bits(3) == 0x9b00dbd8u);
  const Stream ones(~std::uint64_t{0}, static_cast<Draw>(0xff), ~0u, ~0u, ~0u);
  CHECK(ones.bits(4 * 0x00ffffffu) == 0x408f276du);
}

TEST_CASE("an element of a stream is the same alone and in a row") {
  const Stream stream(7, Draw::key, 1, 2, 3);
  for (std::size_t length : {1, 3, 4, 15, 16, 17, 61}) {
    std::vector<double> row(length);
    stream.fill_gaussian(row);
    for (std::uint32_t i = 0; i < length; ++i) CHECK(row[i] == stream.gaussian(i));
    stream.fill_uniform(row);
    for (std::uint32_t i = 0; i < length; ++i) CHECK(row[i] == stream.uniform(i));
  }
}

TEST_CASE("gaussian draws have the moments and tails of a normal distribution") {
  constexpr int n = 1 << 20;
  std::vector<double> x(n);
  Stream(11, Draw::value).fill_gaussian(x);
  double m1 = 0, m2 = 0, m4 = 0, beyond3 = 0, lag = 0;
  for (int i = 0; i < n; ++i) {
    m1 += x[i];
    m2 += x[i] * x[i];
    m4 += x[i] * x[i] * x[i] * x[i];
    beyond3 += std::fabs(x[i]) > 3;
    if (i > 0) lag += x[i] * x[i - 1];
  }
  // Five standard deviations of each estimate.
  const double root = std::sqrt(static_cast<double>(n));
  CHECK(std::fabs(m1 / n) < 5 / root);
  CHECK(std::fabs(m2 / n - 1) < 5 * std::sqrt(2.0) / root);
  CHECK(std::fabs(m4 / n - 3) < 5 * std::sqrt(96.0) / root);
  CHECK(std::fabs(lag / n) < 5 / root);
  const double p = std::erfc(3 / std::sqrt(2.0));
  CHECK(std::fabs(beyond3 / n - p) < 5 * std::sqrt(p / n));
}

TEST_CASE("streams of different seeds, uses, heads, sequences and tokens have nothing in common") {
  std::vector<std::uint32_t> first;
  for (std::uint64_t seed : {0ull, 1ull, 1ull << 32})
    for (Draw draw : {Draw::query, Draw::key})
      for (std::uint32_t head : {0u, 1u})
        for (std::uint32_t sequence : {0u, 1u})
          for (std::uint32_t token : {0u, 1u}) first.push_back(Stream(seed, draw, head, sequence, token).bits(0));
  std::sort(first.begin(), first.end());
  CHECK(std::adjacent_find(first.begin(), first.end()) == first.end());
}
