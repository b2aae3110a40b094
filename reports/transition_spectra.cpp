#include "transition_spectra.hpp"

#include "../kernels/modules/spectral_monitor.hpp"
#include "../reference/effective.hpp"
#include "../reference/spectrum.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace kdacheck {
namespace {

constexpr std::int64_t largest_K = 16;

/// Backward stable solvers: a few roundings per entry and sweep, in units of the matrix's norm.
double solver_error(std::int64_t K, double norm) { return static_cast<double>(K * K) * 0x1p-50 * std::max(norm, 1.0); }

std::vector<float> rounded(const std::vector<double>& x) { return {x.begin(), x.end()}; }
std::vector<double> widened(const std::vector<float>& x) { return {x.begin(), x.end()}; }

double size(const std::vector<double>& x) {
  double squares = 0;
  for (const double element : x) squares += element * element;
  return std::sqrt(squares);
}

void judge_against(SpectrumSample& sample, const modules::TransitionBounds& bounds, double error) {
  sample.radius_bound = bounds.radius;
  sample.norm_bound = bounds.norm;
  sample.heuristic = bounds.heuristic;
  sample.within = bounds.norm <= 1;
  sample.grows = bounds.norm_at_least > 1;
  sample.false_alarm = bounds.heuristic > 1 && sample.within;
  sample.silent = !(bounds.heuristic > 1) && sample.grows;
  sample.outside =
      !(sample.radius <= bounds.radius + error && sample.norm <= bounds.norm + error && sample.norm >= bounds.norm_at_least - error);
}

SpectrumSample kda_sample(const Token<double>& token) {
  const std::vector<float> alpha = rounded(token.alpha), k = rounded(token.k);
  const auto beta = static_cast<float>(token.beta);
  const Transition<double> A{widened(alpha), widened(k), beta};
  SpectrumSample sample{.tau = tau(A)};
  const std::vector<double> values = eigenvalues(A);
  sample.least = values.back();
  sample.largest = values.front();
  sample.radius = std::max(std::abs(values.front()), std::abs(values.back()));
  sample.norm = singular_values(A).front();
  const Interval<double> least = smallest_eigenvalue(A);
  sample.least_low = least.low;
  sample.least_high = least.high;
  const double error = solver_error(static_cast<std::int64_t>(k.size()), sample.norm);
  judge_against(sample, modules::transition_bounds(alpha, k, beta), error);
  sample.outside = sample.outside || !(least.low - error <= sample.least && sample.least <= least.high + error);
  const auto intervals = eigenvalue_intervals(A);
  for (std::size_t i = 0; i < values.size(); ++i)
    sample.outside = sample.outside || !(intervals[i].low - error <= values[i] && values[i] <= intervals[i].high + error);
  return sample;
}

SpectrumSample dplr_sample(const Token<double>& token) {
  const std::vector<float> d = rounded(token.alpha), a = rounded(token.a), b = rounded(token.b);
  const DplrTransition<double> A{widened(d), widened(a), widened(b)};
  constexpr double none = std::numeric_limits<double>::quiet_NaN();
  SpectrumSample sample{.tau = size(A.a) * size(A.b), .least_low = none, .least_high = none};
  const auto values = eigenvalues(A);
  sample.least = values.back().real();
  sample.largest = values.front().real();
  for (const auto& value : values) sample.radius = std::max(sample.radius, std::abs(value));
  sample.norm = singular_values(A).front();
  // Eigenvalues far from normal are ill-conditioned; no radius exceeds the norm, and that is what the bound says.
  const double error = solver_error(static_cast<std::int64_t>(d.size()), sample.norm);
  judge_against(sample, modules::dplr_transition_bounds(d, a, b), error);
  return sample;
}

} // namespace

RegimeSpectra measure_spectra(const Regime& regime, std::uint64_t seed, std::size_t most) {
  Recipe recipe = regime.draw(seed, Tier::full);
  recipe.shape.K = std::min(recipe.shape.K, largest_K);
  recipe.shape.V = 1;
  RegimeSpectra spectra{.rule = recipe.options.rule, .regime = regime.name, .recipe = to_token(recipe), .samples = {}};
  const Problem problem = make_problem(recipe, {});
  const auto rows = static_cast<std::size_t>(problem.shape.B * problem.shape.T * problem.shape.HV);
  const std::size_t stride = std::max<std::size_t>(1, rows / std::max<std::size_t>(most, 1));
  for (std::size_t row = 0; row < rows && spectra.samples.size() < most; row += stride) {
    const auto at = static_cast<std::int64_t>(row);
    const Token<double> token = effective_token<double>(problem, Exactly<double>{problem}, at / problem.shape.HV, at % problem.shape.HV);
    spectra.samples.push_back(recipe.options.rule == Rule::kda ? kda_sample(token) : dplr_sample(token));
  }
  return spectra;
}

} // namespace kdacheck
