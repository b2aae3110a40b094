// Two runs over different poisons: an element that was not written, or added to, differs.

#include "../perturbed/trial.hpp"

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  Recipe recipe = trial.recipe;
  recipe.loss = LossPattern::everywhere;
  const Problem problem = trial.make(recipe);

  const std::uint32_t first = 0x7fc5a5a5, second = 0x3f9d70a4;
  const Run one = trial.backward(problem, {.poison = first, .workspace_poison = 0});
  const Run two = trial.backward(problem, {.poison = second, .workspace_poison = 0});
  trial.expect_same_or_true_gradients(trial.contract.repeat, problem, one, two,
                                      "the gradients' memory held something else before, and an element was not written or added to");
  const Run three = trial.backward(problem, {.poison = second, .workspace_poison = first});
  trial.expect_same_or_true_gradients(trial.contract.repeat, problem, two, three, "the workspace held something else before");
}

} // namespace

Property every_gradient_element_is_written() {
  return {.name = "every-gradient-element-is-written",
          .claim = "no element of a gradient keeps what the memory held before, and what the workspace held has no influence",
          .direction = Direction::backward,
          .check = tried<law>};
}

} // namespace kdacheck::laws
