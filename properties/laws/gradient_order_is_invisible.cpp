// Heads and sequences know nothing of one another in the backward pass either (dq and dk are sums within a group only).

#include "../perturbed/trial.hpp"

#include "../perturbed/multiplied.hpp"

#include <algorithm>

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  Recipe recipe = trial.recipe;
  recipe.loss = LossPattern::everywhere;
  const Problem problem = trial.make(recipe);

  Choice choice = everything(problem);
  const std::int64_t H = problem.shape.H, group = problem.shape.HV / H, turn = trial.pick(H);
  std::ranges::reverse(choice.pieces);
  choice.pieces.push_back(choice.pieces[static_cast<std::size_t>(trial.pick(static_cast<std::int64_t>(choice.pieces.size())))]);
  choice.key_heads.clear();
  choice.value_heads.clear();
  for (std::int64_t i = 0; i <= H; ++i) {
    choice.key_heads.push_back((turn + i) % H);
    for (std::int64_t j = 0; j < group; ++j) choice.value_heads.push_back((turn + i) % H * group + j);
  }
  const Problem other = chosen(problem, choice);
  trial.applies_if(trial.supports(other), "the kernel does not take the larger batch");
  const Run got = trial.backward(other);
  trial.expect_same_or_true_gradients(trial.contract.batch, other, without_parameters(chosen(trial.backward(problem), problem, choice)),
                                      trial.contract.batch == Sameness::bitwise ? without_parameters(got) : got, "another order");
}

} // namespace

Property gradient_order_is_invisible() {
  return {.name = "gradient-order-is-invisible",
          .claim = "sequences and heads get the same gradients in any order and company",
          .direction = Direction::backward,
          .check = tried<law>};
}

} // namespace kdacheck::laws
