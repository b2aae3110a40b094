// The final state is optional; its flag has switched whole code paths.

#include "../perturbed/trial.hpp"

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  const Run with = trial.forward(trial.problem), without = trial.forward(trial.problem, {.final_state = false});
  trial.expect_same_or_true(trial.contract.repeat, trial.problem, with, without, "no final state asked for", Equality::bits);
}

} // namespace

Property asking_for_no_state_changes_nothing() {
  return {.name = "asking-for-no-state-changes-nothing",
          .claim = "o has the same bits whether the final state is asked for or not",
          .check = tried<law>};
}

} // namespace kdacheck::laws
