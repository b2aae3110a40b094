// Heads know nothing of one another: permuted and repeated ones must give permuted and repeated answers.

#include "../perturbed/trial.hpp"

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  const auto [B, T, H, HV, K, V] = trial.problem.shape;
  const std::int64_t group = HV / H, turn = trial.pick(H), inner_turn = trial.pick(group);
  Choice choice = everything(trial.problem);
  choice.key_heads.clear();
  choice.value_heads.clear();
  // all groups backwards from a random one, then that one again
  for (std::int64_t i = 0; i <= H; ++i) {
    const std::int64_t head = (turn + H * (H + 1) - i) % H;
    choice.key_heads.push_back(head);
    for (std::int64_t j = 0; j < group; ++j) choice.value_heads.push_back(head * group + (j + inner_turn) % group);
  }
  const Problem other = chosen(trial.problem, choice);
  trial.expect_same_or_true(trial.contract.batch, other, chosen(trial.forward(trial.problem), trial.problem, choice), trial.forward(other),
                            "the same heads in another order");
}

} // namespace

Property head_order_is_invisible() {
  return {.name = "head-order-is-invisible",
          .claim = "a head gets the same numbers whatever heads stand beside it, in any order",
          .check = tried<law>};
}

} // namespace kdacheck::laws
