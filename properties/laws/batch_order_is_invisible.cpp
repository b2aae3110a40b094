// Sequences know nothing of one another: permuted and repeated ones must give permuted and repeated answers.

#include "../perturbed/trial.hpp"

#include <algorithm>

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  Choice choice = everything(trial.problem);
  std::ranges::reverse(choice.pieces);
  std::ranges::rotate(choice.pieces, choice.pieces.begin() + trial.pick(static_cast<std::int64_t>(choice.pieces.size())));
  choice.pieces.push_back(choice.pieces[static_cast<std::size_t>(trial.pick(static_cast<std::int64_t>(choice.pieces.size())))]);
  choice.pieces.push_back(choice.pieces.front());
  const Problem other = chosen(trial.problem, choice);
  trial.applies_if(trial.supports(other), "the kernel does not take the larger batch");
  trial.expect_same_or_true(trial.contract.batch, other, chosen(trial.forward(trial.problem), trial.problem, choice), trial.forward(other),
                            "the same sequences in another order");
}

} // namespace

Property batch_order_is_invisible() {
  return {.name = "batch-order-is-invisible",
          .claim = "a sequence gets the same numbers alone, beside others, and in any order",
          .check = tried<law>};
}

} // namespace kdacheck::laws
