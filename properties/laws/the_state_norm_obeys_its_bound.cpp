// Error theory, S7, S8 and S10: per-step norms multiply, so a kernel that keeps the bound cannot blow up. It is computed
// from the measured |k|: bf16 copies of unit keys may expand, by no more than this.

#include "../single_step.hpp"

#include <algorithm>
#include <cmath>

namespace kdacheck::laws {
namespace {

double length(const std::vector<double>& vector) {
  double square = 0;
  for (double x : vector) square += x * x;
  return std::sqrt(square);
}

double column_length(const Step& step, const std::vector<double>& matrix, std::int64_t j) {
  double square = 0;
  for (std::int64_t i = 0; i < step.K; ++i) square += step.at(matrix, i, j) * step.at(matrix, i, j);
  return std::sqrt(square);
}

void law(Trial& trial) {
  Recipe recipe = trial.plain();
  trial.applies_if(recipe.options.rule == Rule::kda, "a bound of KDA");
  recipe.lengths.clear();
  const Problem problem = trial.make(recipe);
  trial.applies_if(problem.shape.T >= 1, "no tokens");
  const std::int64_t count = std::min<std::int64_t>(4, problem.shape.T);
  for_each_step(trial, problem, trial.pick(problem.shape.T - count + 1), count, [&](const Step& step) {
    const double growth = std::min(norm_bound(step.kda), std::sqrt(squared_norm_bound(step.kda)));
    for (std::int64_t j = 0; j < step.V; ++j) {
      const double write = std::abs(step.kda.beta * step.v[static_cast<std::size_t>(j)]) * length(step.kda.k);
      const double bound = growth * column_length(step, step.before, j) + write + column_length(step, step.allowed, j);
      trial.expect_within(column_length(step, step.after, j), bound * (1 + 0x1p-40), "length of a state column", step.place(-1, j));
    }
  });
}

} // namespace

Property the_state_norm_obeys_its_bound() {
  return {.name = "the-state-norm-obeys-its-bound",
          .claim = "no step makes a column of the state longer than alpha_max max(1, |1 - tau|) |s| + |beta| |k| |v|",
          .check = tried<law>};
}

} // namespace kdacheck::laws
