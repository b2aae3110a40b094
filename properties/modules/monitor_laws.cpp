#include "monitor_laws.hpp"

#include "../../kernels/modules/spectral_monitor.hpp"

#include <Eigen/Eigenvalues>
#include <Eigen/SVD>
#include <algorithm>
#include <cmath>
#include <fmt/core.h>
#include <limits>

namespace kdacheck {
namespace {

using namespace modules;

Finding broken(const char* tensor, std::string detail) {
  return {.verdict = Verdict::failed_property,
          .bound_util = std::numeric_limits<double>::infinity(),
          .place = Place{.tensor = tensor},
          .detail = std::move(detail),
          .metrics = {}};
}

std::span<const float> part(const NamedTensor& tensor, std::int64_t index, std::int64_t width) {
  return std::span(tensor.values).subspan(static_cast<std::size_t>(index * width), static_cast<std::size_t>(width));
}

/// Of one token's states.
StateShape shape_of(const ModuleCase& c) {
  const NamedTensor &first = c.call.inputs.front(), &v = c.call.inputs.back();
  return {.B = 1, .H = first.shape[1], .K = first.shape[2], .V = v.shape[2]};
}

Eigen::VectorXd vector(std::span<const float> values) {
  return Eigen::Map<const Eigen::VectorXf>(values.data(), static_cast<Eigen::Index>(values.size())).cast<double>();
}

/// (I - beta k k^T) Diag(alpha) of a token and head, both counted together.
struct Transition {
  std::span<const float> alpha, k;
  float beta;
  Eigen::MatrixXd matrix() const {
    const Eigen::VectorXd key = vector(k), kept = vector(alpha);
    return (Eigen::MatrixXd::Identity(key.size(), key.size()) - static_cast<double>(beta) * key * key.transpose()) * kept.asDiagonal();
  }
};
Transition transition_at(const ModuleCase& c, std::int64_t at) {
  const std::int64_t K = c.call.inputs[0].shape[2];
  return {part(c.call.inputs[0], at, K), part(c.call.inputs[1], at, K), c.call.inputs[2].values[static_cast<std::size_t>(at)]};
}
std::int64_t transitions(const ModuleCase& c) { return c.call.rows() * c.call.inputs[0].shape[1]; }

/// Jacobi's singular values are right to K^2 roundings of the matrix's norm.
double norm_of(const Eigen::MatrixXd& A) { return Eigen::JacobiSVD<Eigen::MatrixXd>(A).singularValues()(0); }
double slack_of(const Eigen::MatrixXd& A) { return static_cast<double>(A.size()) * 0x1p-52 * A.norm(); }

Finding encloses(const Eigen::MatrixXd& A, const TransitionBounds& bounds, std::int64_t at) {
  const double norm = norm_of(A), slack = slack_of(A);
  if (!(norm <= bounds.norm + slack))
    return broken("alpha", fmt::format("token and head {}: the norm is {:.17g}, its bound {:.17g}", at, norm, bounds.norm));
  if (!(bounds.norm_at_least <= norm + slack))
    return broken("alpha",
                  fmt::format("token and head {}: the norm is {:.17g}, at least {:.17g} was said", at, norm, bounds.norm_at_least));
  return {}; // norm / bound is 1 where the bound is sharp, as it often is: no error that the report's error / bound should show
}

/// Where all alpha are alike, a, the norm and the radius are a max(1, |1 - beta |k|^2|): known to 64 bits, not to those of a
/// decomposition. NaN elsewhere.
long double known_norm(const Transition& one) {
  long double square = 0;
  for (const float x : one.k) square += static_cast<long double>(x) * static_cast<long double>(x);
  const auto [least, most] = std::ranges::minmax(one.alpha);
  if (least < most || one.k.size() < 2) return std::numeric_limits<long double>::quiet_NaN();
  return static_cast<long double>(most) * std::max(1.0L, std::fabs(1 - static_cast<long double>(one.beta) * square));
}

constexpr double room = 0x1p-30; // for the roundings of the monitor (2^-40 of the largest term, K <= 4096) and of K terms here

/// The bounds are no looser than the formulas that the monitor's header proves, in whose place weaker ones would hold as well; and the
/// heuristic is the one that others warn by.
Finding as_sharp_as_said(const Transition& one, const TransitionBounds& bounds, std::int64_t at) {
  const Eigen::VectorXd kept = vector(one.alpha), key = vector(one.k), decayed = kept.cwiseProduct(key);
  const double beta = one.beta, most = kept.maxCoeff(), square = key.squaredNorm(), tau = beta * square, on_key = decayed.dot(key);
  const double norm =
      std::min(most * std::max(1.0, std::abs(1 - tau)), std::sqrt(most * most + std::max(0.0, beta * (tau - 2)) * decayed.squaredNorm()));
  const double radius = beta < 0 ? most - beta * on_key : std::max(most, square > 0 ? (tau - 1) * on_key / square : 0.0);
  const double grows = square > 0 ? std::abs(1 - tau) * decayed.norm() / std::sqrt(square) : 0.0, size = most * (1 + std::abs(tau));
  const auto off = [&](const char* what, double said, double wanted) {
    return broken("alpha", fmt::format("token and head {}: {} is {:.17g}, by its formula {:.17g}", at, what, said, wanted));
  };
  if (!(bounds.norm <= norm * (1 + room))) return off("the norm's bound", bounds.norm, norm);
  if (!(bounds.radius <= std::min(norm, radius) * (1 + room))) return off("the radius's bound", bounds.radius, std::min(norm, radius));
  if (!(bounds.norm_at_least >= grows - size * room)) return off("the growth that is sure", bounds.norm_at_least, grows);
  if (!(std::abs(bounds.heuristic - most * (1 + tau)) <= size * room)) return off("the heuristic", bounds.heuristic, most * (1 + tau));
  return {};
}

/// The largest singular value of every transition, with its beta and with the opposite one, is no larger than the monitor's bound; and
/// the bounds are as sharp as said.
Finding monitor_bounds_the_norm(const ModuleCase& c, std::uint64_t) {
  for (std::int64_t at = 0; at < transitions(c); ++at)
    for (const float sign : {1.0f, -1.0f}) {
      Transition one = transition_at(c, at);
      one.beta *= sign;
      const TransitionBounds bounds = transition_bounds(one.alpha, one.k, one.beta);
      if (Finding finding = encloses(one.matrix(), bounds, at); is_failure(finding.verdict)) return finding;
      // known_norm adds up K squares and forms two products, each rounded to 64 bits; where it says nothing it is NaN
      const long double known = known_norm(one), least = known * (1 - static_cast<long double>(one.k.size() + 2) * 0x1p-63L);
      if (!std::isnan(known) && !(bounds.norm >= least && bounds.radius >= least))
        return broken("alpha", fmt::format("token and head {}: norm and radius are {:.20g}, their bounds {:.20g} and {:.20g}", at,
                                           static_cast<double>(known), bounds.norm, bounds.radius));
      if (Finding finding = as_sharp_as_said(one, bounds, at); is_failure(finding.verdict)) return finding;
    }
  return {};
}

/// Eigenvalues are those of the symmetric D - beta u u^T, u = D^{1/2} k.
Finding monitor_bounds_the_radius(const ModuleCase& c, std::uint64_t) {
  for (std::int64_t at = 0; at < transitions(c); ++at)
    for (const float sign : {1.0f, -1.0f}) {
      Transition one = transition_at(c, at);
      one.beta *= sign;
      const Eigen::VectorXd kept = vector(one.alpha), u = kept.cwiseSqrt().cwiseProduct(vector(one.k));
      const Eigen::MatrixXd A = Eigen::MatrixXd(kept.asDiagonal()) - static_cast<double>(one.beta) * u * u.transpose();
      const double radius = Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd>(A).eigenvalues().cwiseAbs().maxCoeff();
      const TransitionBounds bounds = transition_bounds(one.alpha, one.k, one.beta);
      if (!(radius <= bounds.radius + slack_of(A)))
        return broken("alpha", fmt::format("token and head {}: the radius is {:.17g}, its bound {:.17g}", at, radius, bounds.radius));
      if (!(bounds.radius <= bounds.norm))
        return broken("alpha",
                      fmt::format("token and head {}: a radius of {:.17g} beside a norm of {:.17g}", at, bounds.radius, bounds.norm));
    }
  return {};
}

/// A monitor of two sequences over a window shorter than the call, with a threshold of its own: its bound on the product of the last
/// transitions of each head, and its counts, which are those of the tokens' own bounds.
Finding monitor_watches_a_window(const ModuleCase& c, std::uint64_t seed) {
  constexpr std::int64_t B = 2;
  StateShape s = shape_of(c);
  s.B = B;
  const std::int64_t R = c.call.rows(), window = 1 + static_cast<std::int64_t>(seed % 5);
  const double threshold = transition_bounds(transition_at(c, 0).alpha, transition_at(c, 0).k, transition_at(c, 0).beta).norm;
  SpectralMonitor monitor(s, window, threshold);
  MonitorCounts counts;
  const auto row_of = [&](std::int64_t b, std::int64_t t) { return (t + 5 * b) % R; };
  for (std::int64_t t = 0; t < R; ++t) {
    std::vector<float> token[3];
    for (std::int64_t b = 0; b < B; ++b)
      for (std::size_t i = 0; i < 3; ++i) {
        const std::span<const float> row = part(c.call.inputs[i], row_of(b, t), i == 2 ? s.H : s.H * s.K);
        token[i].insert(token[i].end(), row.begin(), row.end());
      }
    monitor.observe({.alpha = token[0], .k = token[1], .beta = token[2], .v = {}});
    for (std::int64_t b = 0; b < B; ++b)
      for (std::int64_t h = 0; h < s.H; ++h) {
        const Transition one = transition_at(c, row_of(b, t) * s.H + h);
        const TransitionBounds bounds = transition_bounds(one.alpha, one.k, one.beta);
        const bool alarm = bounds.heuristic > threshold, within = bounds.norm <= threshold, growing = bounds.norm_at_least > threshold;
        ++counts.tokens, counts.proved_within += within, counts.proved_growing += growing, counts.heuristic_alarms += alarm;
        counts.false_alarms += alarm && within, counts.silent_growth += !alarm && growing;
        counts.largest_norm = std::max(counts.largest_norm, bounds.norm),
        counts.largest_radius = std::max(counts.largest_radius, bounds.radius);
        Eigen::MatrixXd product = Eigen::MatrixXd::Identity(s.K, s.K);
        double bound = 0, size = 0; // of the product, from the tokens' own
        for (std::int64_t back = std::min(window, t + 1) - 1; back >= 0; --back) {
          const Transition before = transition_at(c, row_of(b, t - back) * s.H + h);
          product = before.matrix() * product;
          const double term = std::log2(transition_bounds(before.alpha, before.k, before.beta).norm);
          bound += term, size += std::abs(term);
        }
        const double said = monitor.window_norm_log2(b, h), norm = std::log2(norm_of(product));
        if (!(norm <= said + static_cast<double>(R * s.K * s.K) * 0x1p-50))
          return broken("alpha", fmt::format("token {}, sequence {}, head {}: the product of {} grows by 2^{:.17g}, its bound is 2^{:.17g}",
                                             t, b, h, std::min(window, t + 1), norm, said));
        if (!(std::abs(said - bound) <= size * 0x1p-40))
          return broken("alpha", fmt::format("token {}, sequence {}, head {}: the window's bound is 2^{:.17g}, its tokens' 2^{:.17g}", t, b,
                                             h, said, bound));
      }
  }
  return monitor.counts() == counts ? Finding{} : broken("alpha", "the monitor's counts are not those of its tokens");
}

Finding monitor_bounds_the_general_norm(const ModuleCase& c, std::uint64_t) {
  const std::int64_t K = c.call.inputs[0].shape[2];
  for (std::int64_t at = 0; at < transitions(c); ++at) {
    const auto d = part(c.call.inputs[0], at, K), a = part(c.call.inputs[1], at, K), b = part(c.call.inputs[2], at, K);
    const Eigen::MatrixXd A = Eigen::MatrixXd(vector(d).asDiagonal()) - vector(a) * vector(b).transpose();
    const TransitionBounds bounds = dplr_transition_bounds(d, a, b);
    if (Finding finding = encloses(A, bounds, at); is_failure(finding.verdict)) return finding;
    const double triangle = vector(d).cwiseAbs().maxCoeff() + vector(a).norm() * vector(b).norm();
    if (!(std::abs(bounds.heuristic - triangle) <= triangle * room))
      return broken("d", fmt::format("token and head {}: the heuristic is {:.17g}, not {:.17g}", at, bounds.heuristic, triangle));
    if (!(bounds.norm <= triangle * (1 + room)))
      return broken("d",
                    fmt::format("token and head {}: a bound of {:.17g}, the triangle inequality gives {:.17g}", at, bounds.norm, triangle));
  }
  return {};
}

} // namespace

std::vector<ModuleLaw> monitor_laws() {
  return {{"monitor-bounds-the-norm", "the monitor's bounds enclose the largest singular value and are as sharp as its formulas", false,
           monitor_bounds_the_norm},
          {"monitor-bounds-the-radius", "no eigenvalue is larger than the monitor's bound, which is no larger than that of the norm", false,
           monitor_bounds_the_radius},
          {"monitor-watches-a-window",
           "the bound of a window holds for its product, head by head of two sequences; counts are those of its tokens", false,
           monitor_watches_a_window}};
}

std::vector<ModuleLaw> general_monitor_laws() {
  return {{"monitor-bounds-the-norm", "the monitor's bound encloses the largest singular value", false, monitor_bounds_the_general_norm}};
}

std::vector<ModuleFigure> monitor_figures(const ModuleCase& c) {
  const StateShape s = shape_of(c);
  SpectralMonitor monitor(s, c.call.rows());
  for (std::int64_t row = 0; row < c.call.rows(); ++row)
    monitor.observe({.alpha = part(c.call.inputs[0], row, s.H * s.K),
                     .k = part(c.call.inputs[1], row, s.H * s.K),
                     .beta = part(c.call.inputs[2], row, s.H),
                     .v = {}});
  const MonitorCounts& counts = monitor.counts();
  const auto number = [](std::int64_t count) { return static_cast<double>(count); };
  return {{"transitions", number(counts.tokens)},
          {"proved not to grow", number(counts.proved_within)},
          {"proved to grow", number(counts.proved_growing)},
          {"heuristic warns", number(counts.heuristic_alarms)},
          {"false alarms", number(counts.false_alarms)},
          {"growth it misses", number(counts.silent_growth)},
          {"largest norm, bound", counts.largest_norm},
          {"largest radius, bound", counts.largest_radius}};
}

} // namespace kdacheck
