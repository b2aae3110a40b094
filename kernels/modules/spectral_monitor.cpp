#include "spectral_monitor.hpp"

#include <algorithm>
#include <cmath>
#include <fmt/core.h>
#include <limits>
#include <stdexcept>

namespace kdacheck::modules {
namespace {

constexpr double share = 0x1p-40; // of the largest term: more than all roundings of a sum of K <= 4096 terms
constexpr double up = 1 + share, down = 1 - share;

void check_size(const char* tensor, std::size_t found, std::int64_t wanted) {
  if (static_cast<std::int64_t>(found) != wanted)
    throw std::invalid_argument(fmt::format("monitor: {} has {} numbers, its shape needs {}", tensor, found, wanted));
}

void check_values(const char* tensor, std::span<const float> values, bool negative_too) {
  for (float x : values)
    if (!std::isfinite(x) || (!negative_too && !(x >= 0)))
      throw std::invalid_argument(
          fmt::format("monitor: {} holds {}, it must be finite{}", tensor, x, negative_too ? "" : " and not negative"));
}

} // namespace

TransitionBounds transition_bounds(std::span<const float> alpha, std::span<const float> k, float beta_in) {
  const double beta = beta_in;
  double most = 0, key = 0, on_key = 0, scaled = 0; // max alpha, |k|^2, sum k^2 alpha, |D k|^2
  double key_lost = 0;                              // roundings of |k|^2; its terms are exact in fp64
  for (std::size_t i = 0; i < alpha.size(); ++i) {
    const double a = alpha[i], square = static_cast<double>(k[i]) * k[i];
    most = std::max(most, a);
    const double sum = key + square, back = sum - key;
    key_lost += std::fabs((key - (sum - back)) + (square - back));
    key = sum;
    on_key += square * a;
    scaled += square * a * a;
  }
  const double tau = beta * key, off = std::fabs(tau) * share;
  const double reflection = std::max(1.0, std::fabs(1 - tau) + off);
  const double excess = beta * (tau - 2) + std::fabs(beta) * (std::fabs(tau) + 2) * share;
  const double sharp = std::sqrt(most * most + std::max(0.0, excess) * scaled * up) * up;
  TransitionBounds bounds{.radius = 0, .norm = std::min(most * reflection * up, sharp), .norm_at_least = 0, .heuristic = most * (1 + tau)};
  if (key > 0) bounds.norm_at_least = std::max(0.0, std::fabs(1 - tau) - off) * std::sqrt(scaled / key) * down;
  const double radius = beta < 0 ? most - beta * on_key * up : std::max(most, key > 0 ? (tau + off - 1) * (on_key / key) * up : 0.0);
  bounds.radius = std::min(radius * up, bounds.norm);
  // tau in [0, 2] for certain, the end included where nothing was rounded: nothing grows but by alpha_max
  const double tau_lost = std::fabs(std::fma(beta, key, -tau)) + std::fabs(beta) * key_lost * up;
  if (beta >= 0 && (tau_lost == 0 ? tau <= 2 : (tau + tau_lost) * up <= 2)) {
    bounds.norm = most;
    bounds.radius = std::min(bounds.radius, most);
  }
  return bounds;
}

TransitionBounds dplr_transition_bounds(std::span<const float> d, std::span<const float> a, std::span<const float> b) {
  double most = 0, a_square = 0, b_square = 0, scaled_square = 0, scaled_dot = 0, scaled_dot_size = 0;
  for (std::size_t i = 0; i < d.size(); ++i) {
    const double scaled = static_cast<double>(d[i]) * a[i];
    most = std::max(most, std::fabs(static_cast<double>(d[i])));
    a_square += static_cast<double>(a[i]) * a[i];
    b_square += static_cast<double>(b[i]) * b[i];
    scaled_square += scaled * scaled;
    scaled_dot += scaled * b[i];
    scaled_dot_size += std::fabs(scaled * b[i]);
  }
  const double outer = a_square * b_square, t = outer - 2 * scaled_dot, t_error = (outer + 2 * scaled_dot_size) * share;
  const double t_size = std::fabs(t) + t_error;
  const double rest = std::max(0.0, scaled_square * b_square - scaled_dot * scaled_dot) +
                      (scaled_square * b_square + scaled_dot_size * scaled_dot_size) * 4 * share;
  const double lambda = std::max(0.0, (t + t_error) / 2 + std::hypot(t_size / 2, std::sqrt(rest)) * up); // t^2 may underflow
  const double triangle = most + std::sqrt(a_square * b_square);
  TransitionBounds bounds{
      .radius = 0, .norm = std::min(triangle * up, std::sqrt(most * most + lambda) * up), .norm_at_least = 0, .heuristic = triangle};
  bounds.radius = bounds.norm;
  return bounds;
}

SpectralMonitor::SpectralMonitor(StateShape shape, std::int64_t window, double threshold)
    : shape_(shape), window_(window), threshold_(threshold) {
  if (shape.B < 1 || shape.H < 1 || shape.K < 1 || shape.K > 4096 || window < 1 || !std::isfinite(threshold))
    throw std::invalid_argument(fmt::format("monitor: B = {}, H = {}, K = {}, window = {}, threshold = {} are not a monitor's", shape.B,
                                            shape.H, shape.K, window, threshold));
  log2_norms_.assign(static_cast<std::size_t>(window * shape.B * shape.H), 0.0);
}

void SpectralMonitor::observe(const KdaStep& step) {
  const std::int64_t heads = shape_.B * shape_.H, K = shape_.K;
  check_size("alpha", step.alpha.size(), heads * K);
  check_size("k", step.k.size(), heads * K);
  check_size("beta", step.beta.size(), heads);
  check_values("alpha", step.alpha, false);
  check_values("k", step.k, true);
  check_values("beta", step.beta, true);
  double* norms = log2_norms_.data() + seen_ % window_ * heads;
  for (std::int64_t head = 0; head < heads; ++head) {
    const auto rows = [&](std::span<const float> values) {
      return values.subspan(static_cast<std::size_t>(head * K), static_cast<std::size_t>(K));
    };
    const TransitionBounds bounds = transition_bounds(rows(step.alpha), rows(step.k), step.beta[static_cast<std::size_t>(head)]);
    const bool within = bounds.norm <= threshold_, growing = bounds.norm_at_least > threshold_, alarm = bounds.heuristic > threshold_;
    ++counts_.tokens;
    counts_.proved_within += within;
    counts_.proved_growing += growing;
    counts_.heuristic_alarms += alarm;
    counts_.false_alarms += alarm && within;
    counts_.silent_growth += !alarm && growing;
    counts_.largest_norm = std::max(counts_.largest_norm, bounds.norm);
    counts_.largest_radius = std::max(counts_.largest_radius, bounds.radius);
    norms[head] = std::log2(bounds.norm);
  }
  ++seen_;
}

double SpectralMonitor::window_norm_log2(std::int64_t b, std::int64_t h) const {
  if (b < 0 || b >= shape_.B || h < 0 || h >= shape_.H) throw std::out_of_range(fmt::format("monitor: no head {} of sequence {}", h, b));
  const std::int64_t count = std::min(seen_, window_), heads = shape_.B * shape_.H;
  double sum = 0, size = 0;
  for (std::int64_t t = 0; t < count; ++t) {
    const double term = log2_norms_[static_cast<std::size_t>(t * heads + b * shape_.H + h)];
    if (term == -std::numeric_limits<double>::infinity()) return term;
    sum += term;
    size += std::fabs(term);
  }
  // each logarithm and each addition is off by less than 2^-52 of the sum of sizes
  return count == 0 ? 0.0 : sum + size * static_cast<double>(count + 1) * 0x1p-52;
}

} // namespace kdacheck::modules
