// Inputs are used again: by the backward pass, by the next layer, by whoever compares.

#include "../perturbed/trial.hpp"

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  const bool strided = trial.contract.strided && trial.pick(2) == 0;
  for (const std::string& trespass : trial.forward(trial.problem, {.strided = strided}).trespasses)
    trial.expect(trespass.find("changed") == std::string::npos && trespass.find("gaps") == std::string::npos, trespass);
  trial.expect(true, "");
}

} // namespace

Property inputs_are_unchanged() {
  return {.name = "inputs-are-unchanged",
          .claim = "the kernel leaves every bit of its inputs, and of the gaps between their rows, as it was",
          .check = tried<law>};
}

} // namespace kdacheck::laws
