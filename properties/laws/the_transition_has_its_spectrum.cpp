// Error theory, S1 to S6: transport of S_0 = I without values gives the transition itself. By Weyl the eigenvalues of the
// symmetrised measured matrix move by at most the norm of its error.

#include "../../reference/spectrum.hpp"
#include "../single_step.hpp"

#include <algorithm>
#include <cmath>

namespace kdacheck::laws {
namespace {

bool recipe_is_kda(const Trial& trial) { return trial.recipe.options.rule == Rule::kda; }

Problem transport_of_identity(Trial& trial) {
  Recipe recipe = trial.plain();
  recipe.lengths.clear();
  recipe.shape.T = 1;
  recipe.shape.B = 1;
  recipe.state = StatePattern::gaussian;
  recipe.shape.K = std::min<std::int64_t>(recipe.shape.K, 32);
  recipe.shape.V = recipe.shape.K;
  Problem problem = scaled(trial.make(recipe), {Input::v}, 0);
  const std::int64_t K = problem.shape.K;
  trial.applies_if(problem.shape.V == K, "the kernel does not take V = K");
  trial.applies_if(!problem.initial_state.empty(), "the case has no initial state");
  for (std::size_t i = 0; i < problem.initial_state.size(); ++i) {
    const auto row = static_cast<std::int64_t>(i) / K % K, column = static_cast<std::int64_t>(i) % K;
    problem.initial_state[i] = row == column ? 1.0f : 0.0f;
  }
  return problem;
}

void law(Trial& trial) {
  trial.applies_if(recipe_is_kda(trial), "a spectrum of KDA");
  const Problem problem = transport_of_identity(trial);
  for_each_step(trial, problem, 0, 1, [&](const Step& step) {
    const auto [least, most] = std::ranges::minmax(step.kda.alpha);
    if (!(least > 1e-4 * most)) return; // the similarity would magnify the kernel's error beyond use
    const std::int64_t K = step.K;
    Matrix<double> half(K, K);
    double error = 0, asymmetry = 0, trace_seen = 0, trace_allowed = 0;
    // A = P D, and D^{1/2} P D^{1/2} = D^{1/2} A D^{-1/2}
    const auto similar = [&](const std::vector<double>& A, std::int64_t i, std::int64_t j) {
      return step.at(A, i, j) * std::sqrt(step.kda.alpha[static_cast<std::size_t>(i)] / step.kda.alpha[static_cast<std::size_t>(j)]);
    };
    for (std::int64_t i = 0; i < K; ++i) {
      trace_seen += step.at(step.after, i, i);
      trace_allowed += step.at(step.allowed, i, i);
      for (std::int64_t j = 0; j < K; ++j) {
        half(i, j) = (similar(step.after, i, j) + similar(step.after, j, i)) / 2;
        asymmetry += std::pow(similar(step.after, i, j) - similar(step.after, j, i), 2);
        error += std::pow(similar(step.allowed, i, j), 2);
      }
    }
    const double solver = static_cast<double>(K * K) * 0x1p-50; // backward stable: a few roundings per entry and sweep
    error = std::sqrt(error) + solver;
    trial.expect_within(std::sqrt(asymmetry), 2 * error, "D^{1/2} A D^{-1/2} is not symmetric", step.place());
    trial.expect_within(std::abs(trace_seen - trace(step.kda)), trace_allowed + solver, "trace of the transition", step.place());
    const std::vector<double> values = symmetric_eigenvalues(half); // largest first
    const auto intervals = eigenvalue_intervals(step.kda);
    for (std::int64_t i = 0; i < K; ++i) {
      const double value = values[static_cast<std::size_t>(i)];
      const auto& [low, high] = intervals[static_cast<std::size_t>(i)];
      trial.expect_within(std::max({0.0, low - value, value - high}), error, "eigenvalue " + std::to_string(i) + " leaves its interval",
                          step.place());
    }
  });
}

} // namespace

Property the_transition_has_its_spectrum() {
  return {.name = "the-transition-has-its-spectrum",
          .claim = "the measured transition is similar to a symmetric matrix whose eigenvalues interlace with the decays, with its trace "
                   "and its smallest eigenvalue where they must be",
          .check = tried<law>};
}

} // namespace kdacheck::laws
