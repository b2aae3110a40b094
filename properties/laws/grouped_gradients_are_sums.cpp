// dq and dk are summed over the group; everything else is not.

#include "../perturbed/trial.hpp"

#include <algorithm>

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  trial.applies_if(trial.contract.grouped, "the kernel takes no grouped heads");
  Recipe recipe = trial.recipe;
  recipe.loss = LossPattern::everywhere;
  if (recipe.shape.H < 2 || recipe.shape.HV == recipe.shape.H) {
    recipe.shape.V = std::max(std::min<std::int64_t>(recipe.shape.V, 8), recipe.shape.V * recipe.shape.HV / 4); // about the same work
    recipe.shape.H = 2;
    recipe.shape.HV = 4;
  }
  const Problem grouped = trial.make(recipe);
  Choice choice = everything(grouped);
  choice.key_heads.clear();
  for (std::int64_t j = 0; j < grouped.shape.HV; ++j) choice.key_heads.push_back(j * grouped.shape.H / grouped.shape.HV);
  const Problem repeated = chosen(grouped, choice);
  const Run run = trial.backward(grouped);
  Run expected = trial.backward(repeated), got = run;
  for (Run* each : {&expected, &got})
    for (Input shared : {Input::q, Input::k}) each->gradient[static_cast<std::size_t>(shared)].clear();
  if (trial.contract.batch == Sameness::bitwise) trial.expect_same(repeated, expected, got, "grouped heads, against copies");
  trial.expect_true_gradients(grouped, run, "grouped heads");
}

} // namespace

Property grouped_gradients_are_sums() {
  return {.name = "grouped-gradients-are-sums",
          .claim = "heads that share a query/key head get the gradients that copies get, and the shared ones are sums",
          .direction = Direction::backward,
          .check = tried<law>};
}

} // namespace kdacheck::laws
