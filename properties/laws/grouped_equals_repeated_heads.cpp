// Value head j reads query/key head j / (HV/H), and nothing else (decay, beta, bias) is shared.

#include "../perturbed/trial.hpp"

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  trial.applies_if(trial.contract.grouped, "the kernel takes no grouped heads");
  Recipe recipe = trial.recipe;
  if (recipe.shape.H < 2 || recipe.shape.HV == recipe.shape.H) {
    recipe.shape.H = 2; // with one group alone, j mod H and j / (HV / H) are the same
    recipe.shape.HV = 4;
  }
  const Problem grouped = trial.make(recipe);
  Choice choice = everything(grouped);
  choice.key_heads.clear();
  for (std::int64_t j = 0; j < grouped.shape.HV; ++j) choice.key_heads.push_back(j * grouped.shape.H / grouped.shape.HV);
  const Problem repeated = chosen(grouped, choice);
  trial.expect_same_or_true(trial.contract.batch, repeated, trial.forward(repeated), trial.forward(grouped),
                            "grouped heads, against copies");
}

} // namespace

Property grouped_equals_repeated_heads() {
  return {.name = "grouped-equals-repeated-heads",
          .claim = "value heads that share a query/key head get what they get with copies of it",
          .check = tried<law>};
}

} // namespace kdacheck::laws
