// Backward too there is more than a thousand tokens: sixteen chunks of 64 and more, the states of which must all be kept.

#include "../drift.hpp"
#include "../perturbed/trial.hpp"

#include <algorithm>

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  Recipe recipe = long_run(trial.recipe, std::max<std::int64_t>(2 * trial.recipe.shape.T, 1025 + trial.pick(64)), 8, 8);
  if (recipe.loss == LossPattern::single_token || recipe.loss == LossPattern::single_head) recipe.loss = LossPattern::everywhere;
  const Problem problem = trial.make(recipe);
  trial.expect_true_gradients(problem, trial.backward(problem), "T = " + std::to_string(problem.shape.T));
}

} // namespace

Property gradients_of_long_runs_stay_right() {
  return {.name = "gradients-of-long-runs-stay-right",
          .claim = "gradients are within what the contract allows more than a thousand tokens before the end, too",
          .direction = Direction::backward,
          .regimes = {"long-sequences"},
          .check = tried<law>};
}

} // namespace kdacheck::laws
