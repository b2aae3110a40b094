// A default state that nobody cleared is a classic.

#include "../perturbed/trial.hpp"

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  trial.applies_if(trial.contract.initial_state, "the kernel takes no initial state");
  Problem zero = trial.problem, absent = trial.problem;
  absent.initial_state.clear();
  const auto shape = shape_of(Input::initial_state, zero.shape, sequence_count(zero));
  zero.initial_state.assign(static_cast<std::size_t>(shape[0] * shape[1] * shape[2] * shape[3]), 0.0f);
  const Run expected = trial.forward(zero);
  trial.expect_same_or_true(trial.contract.repeat, absent, expected, trial.forward(absent), "initial state absent");
}

} // namespace

Property absent_state_is_state_zero() {
  return {.name = "absent-state-is-state-zero", .claim = "no initial state and one of zeros give the same numbers", .check = tried<law>};
}

} // namespace kdacheck::laws
