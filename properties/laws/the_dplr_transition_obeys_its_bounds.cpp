// Error theory, section 1: for general DPLR neither real spectra nor contraction hold; trace, |A - D| = |a| |b| and
// rank(A - D) = 1 do. Weyl: singular values move by at most the norm of the error.

#include "../../reference/spectrum.hpp"
#include "../single_step.hpp"

#include <algorithm>
#include <cmath>

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  Recipe recipe = trial.plain();
  trial.applies_if(recipe.options.rule == Rule::dplr, "a law of the general form");
  recipe.lengths.clear();
  recipe.shape.T = 1;
  recipe.shape.B = 1;
  recipe.state = StatePattern::gaussian;
  recipe.shape.K = std::min<std::int64_t>(recipe.shape.K, 32);
  recipe.shape.V = recipe.shape.K;
  Problem problem = scaled(trial.make(recipe), {Input::v}, 0);
  const std::int64_t K = problem.shape.K;
  trial.applies_if(problem.shape.V == K && !problem.initial_state.empty(), "the kernel does not take V = K with a state");
  for (std::size_t i = 0; i < problem.initial_state.size(); ++i)
    problem.initial_state[i] = static_cast<std::int64_t>(i) / K % K == static_cast<std::int64_t>(i) % K ? 1.0f : 0.0f;
  for_each_step(trial, problem, 0, 1, [&](const Step& step) {
    const auto& [d, a, b] = step.dplr;
    double trace_due = 0, trace_seen = 0, trace_allowed = 0, square_a = 0, square_b = 0, error = 0;
    Matrix<double> rank_one(K, K);
    for (std::int64_t i = 0; i < K; ++i) {
      const auto c = static_cast<std::size_t>(i);
      trace_due += d[c] - a[c] * b[c];
      trace_seen += step.at(step.after, i, i);
      trace_allowed += step.at(step.allowed, i, i);
      square_a += a[c] * a[c];
      square_b += b[c] * b[c];
      for (std::int64_t j = 0; j < K; ++j) {
        rank_one(i, j) = step.at(step.after, i, j) - (i == j ? d[c] : 0);
        error += step.at(step.allowed, i, j) * step.at(step.allowed, i, j);
      }
    }
    error = std::sqrt(error) + static_cast<double>(K * K) * 0x1p-50;
    trial.expect_within(std::abs(trace_seen - trace_due), trace_allowed + static_cast<double>(K) * 0x1p-50, "trace of the transition",
                        step.place());
    const std::vector<double> singular = singular_values(rank_one);
    trial.expect_within(std::abs(singular[0] - std::sqrt(square_a * square_b)), error, "norm of a b^T", step.place());
    if (K > 1) trial.expect_within(singular[1], error, "A - D has a second direction", step.place());
  });
}

} // namespace

Property the_dplr_transition_obeys_its_bounds() {
  return {.name = "the-dplr-transition-obeys-its-bounds",
          .claim = "the measured transition D - a b^T has the trace, the norm and the vanishing 2x2 minors that follow from its form",
          .check = tried<law>};
}

} // namespace kdacheck::laws
