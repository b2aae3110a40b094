// The law that all others lean on: what the kernel wrote is what the certified recurrence says.

#include "../perturbed/trial.hpp"

namespace kdacheck::laws {
namespace {

void law(Trial& trial) { trial.expect_true(trial.problem, trial.forward(trial.problem), ""); }

} // namespace

Property agrees_with_the_oracle() {
  return {.name = "agrees-with-the-oracle",
          .claim = "o and the final state are those of the recurrence, token by token and head by head",
          .everywhere = true,
          .in_every_round = true,
          .check = tried<law>};
}

} // namespace kdacheck::laws
