// Decays are factored into exponentials that overflow; masks multiply infinity by zero.

#include "../perturbed/trial.hpp"

#include <cmath>

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  const Run run = trial.forward(trial.problem);
  for (Output output : all_outputs)
    for (std::size_t i = 0; i < run[output].size(); ++i) {
      if (std::isfinite(run[output][i])) continue;
      const double most = largest(output == Output::o ? trial.contract.output : Format::fp32);
      // half the range: an exact value beside the end of the range may legally round out of it
      trial.expect(std::abs((*trial.judge.forward_truth(trial.problem))[output].value[i]) > most / 2, "not a finite number",
                   place_of(output, trial.problem, trial.contract.chunk, i));
    }
  trial.expect(true, "");
}

} // namespace

Property outputs_are_finite() {
  return {.name = "outputs-are-finite",
          .claim = "every output is a finite number wherever the exact one fits the format",
          .everywhere = true,
          .check = tried<law>};
}

} // namespace kdacheck::laws
