// Canaries stand around every buffer, and forbidden pages behind it.

#include "../perturbed/trial.hpp"

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  const bool strided = trial.contract.strided && trial.pick(2) == 0;
  for (const std::string& trespass : trial.forward(trial.problem, {.final_state = trial.pick(4) != 0, .strided = strided}).trespasses)
    trial.expect(false, trespass); // changed inputs too: inputs-are-unchanged meets few regimes, and no packed one
  trial.expect(true, "");
}

} // namespace

Property nothing_else_is_touched() {
  return {.name = "nothing-else-is-touched",
          .claim = "the kernel changes no input, writes outside none of its outputs and workspace and reads past the end of no tensor",
          .everywhere = true,
          .check = tried<law>};
}

} // namespace kdacheck::laws
