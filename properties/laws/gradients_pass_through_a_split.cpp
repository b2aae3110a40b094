// Context parallelism hands states forwards and their gradients backwards.

#include "../perturbed/trial.hpp"

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  trial.applies_if(trial.contract.initial_state, "the kernel takes no initial state");
  Recipe recipe = trial.recipe;
  recipe.loss = LossPattern::everywhere;
  const Problem made = trial.make(recipe), whole = chosen(made, alone(made, trial.longest(made)));
  trial.applies_if(whole.shape.T >= 2, "a single token cannot be split");
  const std::int64_t split = 1 + trial.pick(whole.shape.T - 1);
  Problem first = chosen(whole, window(whole, 0, split)), second = chosen(whole, window(whole, split, whole.shape.T - split));
  second.initial_state = trial.forward(first).final_state;
  const Run run_second = trial.backward(second);
  first.d_final_state = run_second.gradient[static_cast<std::size_t>(Input::initial_state)];
  const std::string what = "split before token " + std::to_string(split);
  trial.expect_true_gradients(second, run_second, what + ", second part");
  trial.expect_true_gradients(first, trial.backward(first), what + ", first part with the gradient that the second wrote");
}

} // namespace

Property gradients_pass_through_a_split() {
  return {.name = "gradients-pass-through-a-split",
          .claim = "handing dh across a split gives every token the gradient that one run gives it",
          .direction = Direction::backward,
          .check = tried<law>};
}

} // namespace kdacheck::laws
