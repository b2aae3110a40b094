// Loss scaling relies on it. Where a number inside may underflow, a power of two is judged by the contract (multiplied.hpp).

#include "../perturbed/trial.hpp"

#include "../perturbed/multiplied.hpp"

namespace kdacheck::laws {
namespace {

Problem with_loss_times(Problem problem, float factor) {
  for (auto* loss : {&problem.d_o, &problem.d_final_state})
    for (float& x : *loss) x *= factor;
  return problem;
}

void law(Trial& trial) {
  Recipe recipe = trial.recipe;
  recipe.loss = LossPattern::everywhere;
  const Problem problem = trial.make(recipe);

  const Run run = trial.backward(problem);
  trial.expect_same(problem, multiplied(run, -1), trial.backward(with_loss_times(problem, -1)), "the loss negated");
  Problem opposite = problem; // the same loss
  opposite.options.scale = -opposite.options.scale;
  for (float& x : opposite.d_o) x = -x;
  if (trial.supports(opposite)) trial.expect_same(opposite, run, trial.backward(opposite), "d_o and the scale negated");
  // gradients of losses are scaled by thousands where they are stored in 16 bits
  const bool exact = scales_exactly(trial.contract) && !may_underflow(problem);
  const float factor = trial.pick(2) == 0 ? 2.0f : exact ? 4096.0f : 16.0f;
  const Problem larger = with_loss_times(problem, factor);
  const Run got = trial.backward(larger);
  if (exact)
    trial.expect_same(larger, without_underflow(multiplied(run, factor), factor), without_underflow(got, factor),
                      "the loss multiplied by a power of two");
  else
    trial.expect_true_gradients(larger, got, "the loss multiplied by a power of two");
}

} // namespace

Property gradients_are_linear_in_the_loss() {
  return {.name = "gradients-are-linear-in-the-loss",
          .claim = "gradients follow the sign of (d_o, d_S) exactly, powers of two where nothing underflows, and do not see d_o and the "
                   "scale both negated",
          .direction = Direction::backward,
          .check = tried<law>};
}

} // namespace kdacheck::laws
