// Rows past a tail that were scaled, but not masked, end in dk and dg (flash-linear-attention #652).

#include "../perturbed/trial.hpp"

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  const std::int64_t block = trial.pick(2) == 0 ? std::max<std::int64_t>(trial.contract.chunk, 16) : 16;
  Recipe around = trial.recipe;
  around.loss = LossPattern::everywhere;
  around.lengths.clear();
  around.shape.B = 1;
  around.shape.T = block * (1 + trial.pick(2)) - 1 + trial.pick(3);
  const Problem problem = trial.make(around);
  trial.expect_true_gradients(problem, trial.backward(problem), "T = " + std::to_string(problem.shape.T));
}

} // namespace

Property gradients_are_right_at_every_length() {
  return {.name = "gradients-are-right-at-every-length",
          .claim = "gradients are right at every length around a boundary of the chunk or of its 16-token sub-blocks",
          .direction = Direction::backward,
          .check = tried<law>};
}

} // namespace kdacheck::laws
