// What the delta rule is for. Gated linear attention without the erase, the wrong operator under the right name, fails here.

#include "../single_step.hpp"

#include <algorithm>
#include <cmath>

namespace kdacheck::laws {
namespace {

// +-2^-m on 4^m channels: |k| = 1 exactly, in every format.
void make_keys_unit(Problem& problem, Trial& trial) {
  const std::int64_t K = problem.shape.K;
  std::int64_t support = 1;
  while (4 * support <= K && trial.pick(3) > 0) support *= 4;
  const auto entry = static_cast<float>(1 / std::sqrt(static_cast<double>(support)));
  std::ranges::fill(problem.k, 0.0f);
  for (std::size_t row = 0; row < problem.k.size(); row += static_cast<std::size_t>(K)) {
    const std::int64_t first = trial.pick(K - support + 1);
    for (std::int64_t i = first; i < first + support; ++i)
      problem.k[row + static_cast<std::size_t>(i)] = trial.pick(2) == 0 ? entry : -entry;
  }
}

void law(Trial& trial) {
  Recipe recipe = trial.plain();
  recipe.options.rule = Rule::kda;
  recipe.state = StatePattern::gaussian;
  recipe.lengths.clear();
  recipe.shape.T = 1;
  Problem problem = trial.make(recipe);
  trial.applies_if(problem.options.rule == Rule::kda, "a law of KDA");
  std::ranges::fill(problem.beta, 1.0f);
  make_keys_unit(problem, trial);
  trial.applies_if(trial.supports(problem), "beta 1 is outside the kernel's domain");
  for_each_step(trial, problem, 0, 1, [&](const Step& step) {
    for (std::int64_t j = 0; j < step.V; ++j) {
      double read = 0, allowed = 0;
      for (std::int64_t i = 0; i < step.K; ++i) {
        const double k = step.kda.k[static_cast<std::size_t>(i)];
        read += k * step.at(step.after, i, j);
        allowed += std::abs(k) * step.at(step.allowed, i, j);
      }
      trial.expect_within(std::abs(read - step.v[static_cast<std::size_t>(j)]), allowed, "S^T k, against v", step.place(-1, j));
    }
  });
}

} // namespace

Property a_unit_key_with_beta_one_overwrites() {
  return {.name = "a-unit-key-with-beta-one-overwrites",
          .claim = "a write with beta 1 along a unit key is read back: S^T k = v",
          .check = tried<law>};
}

} // namespace kdacheck::laws
