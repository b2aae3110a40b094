// The law that the other gradient laws lean on.

#include "../perturbed/trial.hpp"

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  trial.applies_if(!trial.problem.d_o.empty() || !trial.problem.d_final_state.empty(), "the case has no loss");
  trial.expect_true_gradients(trial.problem, trial.backward(trial.problem), "");
}

} // namespace

Property gradients_agree_with_the_oracle() {
  return {.name = "gradients-agree-with-the-oracle",
          .claim = "every gradient is that of the recurrence, token by token and head by head",
          .direction = Direction::backward,
          .everywhere = true,
          .in_every_round = true,
          .check = tried<law>};
}

} // namespace kdacheck::laws
