// Contiguous gradients of strided inputs: two layouts in one loop.

#include "../perturbed/trial.hpp"

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  Recipe recipe = trial.recipe;
  recipe.loss = LossPattern::everywhere;
  const Problem problem = trial.make(recipe);

  const Run dense = trial.backward(problem);
  trial.expect_same_or_true_gradients(trial.contract.repeat, problem, dense, trial.backward(problem, {.strided = true}), "strided inputs",
                                      Equality::bits);
}

} // namespace

Property strided_inputs_give_the_same_gradients() {
  return {.name = "strided-inputs-give-the-same-gradients",
          .claim = "inputs with gaps between their rows give the gradients that dense ones give, bit for bit",
          .direction = Direction::backward,
          .excluded = [](const Contract& contract) { return std::string(contract.strided ? "" : "strided=no: dense inputs only"); },
          .in_every_round = true,
          .check = tried<law>};
}

} // namespace kdacheck::laws
