// Every channel has its own decay and bias; a kernel that reads a neighbour's is right only while they are alike.

#include "../perturbed/trial.hpp"

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  const Problem& problem = trial.problem;
  const std::int64_t K = problem.shape.K, turn = trial.pick(K);
  Choice choice = everything(problem), inverse = everything(problem);
  for (std::int64_t c = 0; c < K; ++c) {
    const std::int64_t from = (K - 1 - c + turn) % K;
    choice.key_channels[static_cast<std::size_t>(c)] = from;
    inverse.key_channels[static_cast<std::size_t>(from)] = c;
  }
  const Problem turned = chosen(problem, choice);
  trial.expect_true(problem, chosen(trial.forward(turned), turned, inverse), "key channels permuted");
}

} // namespace

Property key_channel_order_is_invisible() {
  return {.name = "key-channel-order-is-invisible",
          .claim = "permuting the key channels of every tensor changes o within the contract only",
          .check = tried<law>};
}

} // namespace kdacheck::laws
