// Canaries stand around every buffer, and forbidden pages behind it.

#include "../perturbed/trial.hpp"

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  Recipe recipe = trial.recipe;
  recipe.loss = LossPattern::everywhere;
  const Problem problem = trial.make(recipe);

  const bool strided = trial.contract.strided && trial.pick(2) == 0;
  for (const std::string& trespass : trial.backward(problem, {.strided = strided}).trespasses) trial.expect(false, trespass);
  trial.expect(true, "");
}

} // namespace

Property backward_touches_nothing_else() {
  return {.name = "backward-touches-nothing-else",
          .claim = "the backward pass changes no input, writes outside no gradient and reads past the end of no tensor",
          .direction = Direction::backward,
          .check = tried<law>};
}

} // namespace kdacheck::laws
