// Superposition: the answer to (v, S_0) is the sum of those to (v, 0) and (0, S_0). A part that is small beside the other
// is judged by its own size here.

#include "../perturbed/trial.hpp"

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  const Problem& problem = trial.problem;
  if (trial.pick(2) == 0 || problem.initial_state.empty()) {
    Problem values = problem;
    values.initial_state.clear();
    trial.expect_true(values, trial.forward(values), "values alone");
  } else {
    const Problem transport = scaled(problem, {Input::v}, 0);
    trial.expect_true(transport, trial.forward(transport), "transport of the state alone");
  }
}

} // namespace

Property parts_of_values_and_state_are_right() {
  return {.name = "parts-of-values-and-state-are-right",
          .claim = "the values alone and the state alone each give the part of the answer that is theirs",
          .check = tried<law>};
}

} // namespace kdacheck::laws
