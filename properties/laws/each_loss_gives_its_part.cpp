// Reverse mode is linear in (d_o, d_S): the gradients of both losses are the sum of those of each. A part that is small
// beside the other is judged by its own size here.

#include "../perturbed/trial.hpp"

#include <algorithm>

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  Recipe recipe = trial.recipe;
  recipe.loss = LossPattern::everywhere;
  const Problem problem = trial.make(recipe);

  const bool on_output = trial.pick(2) == 0;
  Problem part = problem;
  (on_output ? part.d_final_state : part.d_o).clear();
  trial.expect_true_gradients(part, trial.backward(part), on_output ? "a loss on o alone" : "a loss on the final state alone");

  Problem none = problem;
  std::ranges::fill(none.d_o, 0.0f);
  std::ranges::fill(none.d_final_state, 0.0f);
  const Run run = trial.backward(none);
  Run zeros = run;
  for (auto& gradient : zeros.gradient) std::ranges::fill(gradient, 0.0f);
  trial.expect_same(none, zeros, run, "no loss");
}

} // namespace

Property each_loss_gives_its_part() {
  return {.name = "each-loss-gives-its-part",
          .claim = "a loss on o alone and one on the final state alone each give their own gradients, and no loss gives zeros",
          .direction = Direction::backward,
          .check = tried<law>};
}

} // namespace kdacheck::laws
