// A state that grows by a little in every step passes every short test. Where nothing is forgotten, errors may add up, and
// the budget says by how much.

#include "../drift.hpp"
#include "../perturbed/trial.hpp"

#include <algorithm>

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  std::int64_t T = std::max<std::int64_t>(16 * trial.recipe.shape.T, 2048);
  if (T > 65536) T = 100000; // the longest of a nightly run are all as long as is claimed
  const Problem problem = trial.make(long_run(trial.recipe, T, 16, 8));
  trial.expect_true(problem, trial.forward(problem), "T = " + std::to_string(problem.shape.T));
}

} // namespace

Property long_runs_stay_right() {
  return {.name = "long-runs-stay-right",
          .claim = "a hundred thousand tokens on, o and the state are still within what the contract allows",
          .regimes = {"slow-decay", "no-decay", "near-identical-keys", "reflections", "long-sequences", "keys-longer-than-one"},
          .check = tried<law>};
}

} // namespace kdacheck::laws
