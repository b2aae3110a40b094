// The monitor's bounds against computed spectra and exact cases, and what it says of the heuristic.

#include "../spectral_monitor.hpp"

#include "../../../reference/spectrum.hpp"

#include <array>
#include <boost/multiprecision/cpp_bin_float.hpp>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <random>

using namespace kdacheck;
using namespace kdacheck::modules;

namespace {

std::mt19937_64 bits(577);
float uniform(float low, float high) { return low + (high - low) * static_cast<float>(bits() % 65536) / 65536.0f; }
std::vector<float> uniforms(std::size_t count, float low, float high) {
  std::vector<float> values(count);
  for (float& x : values) x = uniform(low, high);
  return values;
}
std::vector<double> wide(const std::vector<float>& x) { return {x.begin(), x.end()}; }

struct Head {
  std::vector<float> alpha, k;
  float beta = 0;
  Transition<double> exact() const { return {wide(alpha), wide(k), beta}; }
};

/// tau from below 0 to beyond 2; half have one decay for all channels, where bounds are sharp.
Head random_head(std::size_t K) {
  Head head{uniforms(K, 0, 1), uniforms(K, -1, 1), uniform(-1, 6)};
  if (bits() % 2) head.alpha.assign(K, uniform(0, 1));
  if (bits() % 3 == 0) head.alpha[bits() % K] = 0;
  double square = 0;
  for (float x : head.k) square += static_cast<double>(x) * x;
  for (float& x : head.k) x = static_cast<float>(x / std::sqrt(square + 1e-6));
  return head;
}

/// The computed spectrum is backward stable: K 2^-50 of the norm is more than Eigen's roundings for K <= 32.
double roundings(std::size_t K, double norm) { return static_cast<double>(K) * 0x1p-50 * norm; }

} // namespace

TEST_CASE("no eigenvalue and no singular value is beyond the monitor's bounds, and the lower bound is reached") {
  double sharpest_norm = 0, sharpest_radius = 0;
  for (int trial = 0; trial < 600; ++trial) {
    const std::size_t K = 1 + bits() % 24;
    const Head head = random_head(K);
    const TransitionBounds bounds = transition_bounds(head.alpha, head.k, head.beta);
    const double norm = singular_values(head.exact()).front(), radius = spectral_radius(head.exact()), off = roundings(K, bounds.norm);
    INFO("K " << K << " beta " << head.beta << " norm " << norm << " bound " << bounds.norm << " radius " << radius);
    REQUIRE(norm <= bounds.norm + off);
    REQUIRE(radius <= bounds.radius + off);
    REQUIRE(bounds.norm_at_least <= norm + off);
    REQUIRE(bounds.radius <= bounds.norm);
    sharpest_norm = std::max(sharpest_norm, norm / bounds.norm);
    sharpest_radius = std::max(sharpest_radius, radius / bounds.radius);
  }
  CHECK(sharpest_norm >= 1 - 0x1p-30); // a bound that is never nearly reached would be too easy to hold
  CHECK(sharpest_radius >= 1 - 0x1p-30);
}

TEST_CASE("no rounding takes a bound below the exact number: one channel, whose product has fewer digits than the arithmetic") {
  using Exact = boost::multiprecision::cpp_bin_float_100;
  for (int trial = 0; trial < 20'000; ++trial) {
    const float alpha = uniform(0, 1), k = uniform(0.5f, 1.5f), sign = bits() % 2 ? 1.0f : -1.0f;
    // tau near 0, from either side; near 1; near 2; anywhere
    const float small = std::ldexp(uniform(0.5f, 1), -static_cast<int>(bits() % 40)) * sign;
    const float beta = std::array{small, (1 + small) / (k * k), (2 + small) / (k * k), uniform(-1, 6)}[bits() % 4];
    const TransitionBounds bounds = transition_bounds({&alpha, 1}, {&k, 1}, beta);
    const Exact exact = abs(1 - Exact(beta) * k * k) * alpha;
    INFO("alpha " << alpha << " k " << k << " beta " << beta);
    REQUIRE(exact <= bounds.norm);
    REQUIRE(exact <= bounds.radius);
    REQUIRE(exact >= bounds.norm_at_least);
    const Exact general = abs(Exact(alpha) - Exact(k) * beta);
    REQUIRE(general <= dplr_transition_bounds({&alpha, 1}, {&k, 1}, {&beta, 1}).norm);
  }
}

TEST_CASE("the general form's norm is within its bound and the bound is reached") {
  double sharpest = 0;
  for (int trial = 0; trial < 400; ++trial) {
    const std::size_t K = 1 + bits() % 16;
    std::vector<float> d = uniforms(K, -1, 1), a = uniforms(K, -1, 1), b = uniforms(K, -1, 1);
    if (trial % 2) d.assign(K, 0.75f);
    if (trial % 4 == 1) a = b;
    const DplrTransition<double> A{wide(d), wide(a), wide(b)};
    const TransitionBounds bounds = dplr_transition_bounds(d, a, b);
    const double norm = singular_values(A).front(), off = roundings(K, bounds.norm);
    REQUIRE(norm <= bounds.norm + off);
    REQUIRE(spectral_radius(A) <= bounds.radius + 64 * off);
    sharpest = std::max(sharpest, norm / bounds.norm);
  }
  CHECK(sharpest >= 1 - 0x1p-30);
  const std::vector<float> none{0, 0}, tiny{0x1p-140f, 0};
  CHECK(dplr_transition_bounds(none, tiny, tiny).norm >= 0x1p-280);
}

TEST_CASE("the product over a window is within its bound, and old tokens leave the window") {
  const StateShape shape{2, 2, 6, 1};
  const std::int64_t window = 5;
  SpectralMonitor monitor(shape, window);
  CHECK(monitor.window_norm_log2(0, 0) == 0);
  std::vector<std::vector<Matrix<double>>> seen(4);
  for (int t = 0; t < 17; ++t) {
    std::vector<float> alpha, k, beta;
    for (std::size_t head = 0; head < 4; ++head) {
      const Head one = random_head(6);
      alpha.insert(alpha.end(), one.alpha.begin(), one.alpha.end());
      k.insert(k.end(), one.k.begin(), one.k.end());
      beta.push_back(one.beta);
      seen[head].push_back(matrix_form(one.exact()));
    }
    monitor.observe({alpha, k, beta, {}});
    for (std::int64_t head = 0; head < 4; ++head) {
      const auto& all = seen[static_cast<std::size_t>(head)];
      Matrix<double> product = identity<double>(6);
      double log2_bounds = 0;
      for (std::size_t i = all.size() - std::min<std::size_t>(all.size(), 5); i < all.size(); ++i) {
        product = all[i] * product;
        log2_bounds += std::log2(singular_values(all[i]).front());
      }
      const double bound = monitor.window_norm_log2(head / 2, head % 2);
      CHECK(singular_values(product).front() <= std::exp2(bound) * (1 + 0x1p-40));
      CHECK(bound >= log2_bounds - 0x1p-40);
    }
  }
  CHECK(monitor.counts().tokens == 17 * 4);
}

TEST_CASE("a token that forgets everything leaves nothing of its window, until it has left it") {
  SpectralMonitor monitor({1, 1, 3, 1}, 2);
  const std::vector<float> nothing(3, 0.0f), half(3, 0.5f), k{1, 0, 0}, beta{0};
  monitor.observe({half, k, beta, {}});
  CHECK(monitor.window_norm_log2(0, 0) == Approx(-1));
  monitor.observe({nothing, k, beta, {}});
  CHECK(monitor.window_norm_log2(0, 0) == -std::numeric_limits<double>::infinity());
  monitor.observe({half, k, beta, {}});
  CHECK(monitor.window_norm_log2(0, 0) == -std::numeric_limits<double>::infinity());
  monitor.observe({half, k, beta, {}});
  CHECK(monitor.window_norm_log2(0, 0) == Approx(-2));
}

TEST_CASE("the heuristic warns of unit keys and beta in (0, 2], where nothing grows, and is silent where beta < 0 expands") {
  SpectralMonitor monitor({1, 1, 4, 1}, 8);
  const std::vector<float> alpha(4, 1.0f), k{0.5f, 0.5f, 0.5f, 0.5f}; // |k| = 1 exactly
  for (float beta : {0.25f, 1.0f, 2.0f}) monitor.observe({alpha, k, std::span(&beta, 1), {}});
  CHECK(monitor.counts().heuristic_alarms == 3);
  CHECK(monitor.counts().false_alarms == 3);
  CHECK(monitor.counts().proved_within == 3);
  CHECK(monitor.counts().largest_norm == 1);
  CHECK(monitor.window_norm_log2(0, 0) == 0);
  float beta = -0.5f; // an eigenvalue 1.5
  monitor.observe({alpha, k, std::span(&beta, 1), {}});
  CHECK(monitor.counts().silent_growth == 1);
  CHECK(monitor.counts().proved_growing == 1);
  beta = 2.5f; // an eigenvalue -1.5: both warn, rightly
  monitor.observe({alpha, k, std::span(&beta, 1), {}});
  CHECK(monitor.counts().proved_growing == 2);
  CHECK(monitor.counts().false_alarms == 3);
  CHECK(monitor.counts().heuristic_alarms == 4);
}

TEST_CASE("a monitor refuses what it cannot judge and counts nothing of it") {
  SpectralMonitor monitor({1, 1, 2, 1}, 2);
  const std::vector<float> alpha{0.5f, 0.5f}, k{1, 0}, beta{1};
  const auto refused = [&](const KdaStep& step, const char* part) {
    CHECK_THROWS_WITH(monitor.observe(step), Catch::Contains(part));
    CHECK(monitor.counts().tokens == 0);
  };
  const std::vector<float> below{0.5f, -0.25f}, broken{std::nanf(""), 0};
  refused({below, k, beta, {}}, "alpha holds -0.25");
  refused({alpha, broken, beta, {}}, "k holds nan");
  refused({alpha, k, {}, {}}, "beta has 0 numbers");
  CHECK_THROWS_AS(monitor.window_norm_log2(0, 1), std::out_of_range);
  CHECK_THROWS_AS(SpectralMonitor({1, 1, 2, 1}, 0), std::invalid_argument);
}
