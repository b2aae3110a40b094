// Gradients of parameters are sums over rows that run in fp64: of rows that are all alike, a row's share times their number. A
// chain of fp32 additions of twenty thousand equal numbers drifts.

#include "../gated_norm.hpp"
#include "../gating.hpp"
#include "../rms_norm.hpp"
#include "../short_convolution.hpp"

#include <catch2/catch.hpp>
#include <cmath>

using namespace kdacheck;
using namespace kdacheck::modules;

namespace {

constexpr std::int64_t rows = 20011;

std::vector<float> repeated(const std::vector<float>& row, std::int64_t times) {
  std::vector<float> all;
  for (std::int64_t i = 0; i < times; ++i) all.insert(all.end(), row.begin(), row.end());
  return all;
}

/// Within the roundings to fp32 of the share and of the sum.
void check_times_rows(const std::vector<float>& sum, const std::vector<float>& share) {
  REQUIRE(sum.size() == share.size());
  for (std::size_t i = 0; i < sum.size(); ++i) {
    const double wanted = static_cast<double>(share[i]) * static_cast<double>(rows);
    REQUIRE(wanted != 0);
    CHECK(std::abs(static_cast<double>(sum[i]) - wanted) <= 0x1p-23 * std::abs(wanted));
  }
}

} // namespace

TEST_CASE("A_log and dt_bias receive the sum over rows in fp64") {
  const Gating module{.D = 1, .rank = 1, .H = 2, .K = 1, .form = GateForm::softplus};
  const GatingParameters parameters{.down = {0.7f}, .up = {0.9f, -0.3f}, .A_log = {-0.3f, 0.2f}, .dt_bias = {0.1f, -0.4f}};
  const auto of = [&](std::int64_t count) {
    const std::vector<float> x = repeated({1.1f}, count), d = repeated({0.37f, -0.61f}, count);
    return gates_backward(module, parameters, {.B = 1, .T = count, .x = x}, {.alpha = {}, .log_decay = d});
  };
  const GatingGradients all = of(rows), one = of(1);
  check_times_rows(all.A_log, one.A_log);
  check_times_rows(all.dt_bias, one.dt_bias);
}

TEST_CASE("weight and bias of the convolution receive the sum over tokens in fp64") {
  const std::vector<float> weight{0.7f, -0.9f}, bias{0.2f, 0.3f};
  const ShortConvolution conv{.channels = 2, .width = 1, .weight = weight, .bias = bias};
  const auto of = [&](std::int64_t count) {
    const std::vector<float> u = repeated({1.1f, 0.3f}, count), d = repeated({0.37f, -0.61f}, count);
    const std::vector<std::int64_t> cu{0, count};
    return convolve_backward(conv, cu, u, {}, convolve(conv, cu, u, {}).a, d, {});
  };
  const ConvolutionGradients all = of(rows), one = of(1);
  check_times_rows(all.weight, one.weight);
  check_times_rows(all.bias, one.bias);
}

TEST_CASE("weights of both norms receive the sum over rows in fp64") {
  const std::vector<float> weight{0.7f, -0.9f, 1.3f};
  const auto gated = [&](std::int64_t count) {
    const std::vector<float> o = repeated({1.1f, 0.3f, -0.7f}, count), gate = repeated({0.2f, -0.1f, 0.9f}, count),
                             d = repeated({0.37f, -0.61f, 0.53f}, count);
    return gated_norm_backward({.heads = 1, .V = 3, .weight = weight}, count, o, gate, d).weight;
  };
  check_times_rows(gated(rows), gated(1));
  const auto plain = [&](std::int64_t count) {
    const std::vector<float> x = repeated({1.1f, 0.3f, -0.7f}, count), d = repeated({0.37f, -0.61f, 0.53f}, count);
    return rms_norm_backward({.width = 3, .weight = weight}, count, x, d).weight;
  };
  check_times_rows(plain(rows), plain(1));
}
