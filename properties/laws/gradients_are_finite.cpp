// Backward passes overflow where the forward does not: exp before the mask, sigmoid' times e^A_log (transformers #48455,
// flash-linear-attention #1007).

#include "../perturbed/trial.hpp"

#include <cmath>

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  trial.applies_if(!trial.problem.d_o.empty() || !trial.problem.d_final_state.empty(), "the case has no loss");
  const Run run = trial.backward(trial.problem);
  for (Input input : all_inputs) {
    const auto& gradient = run.gradient[static_cast<std::size_t>(input)];
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      if (std::isfinite(gradient[i])) continue;
      // half the range: an exact value beside the end of the range may legally round out of it
      const double most = largest(
          input == Input::A_log || input == Input::dt_bias || input == Input::initial_state ? Format::fp32 : trial.contract.gradient);
      trial.expect(std::abs((*trial.judge.gradient_truth(trial.problem))[input].value[i]) > most / 2, "not a finite number",
                   place_of(input, trial.problem, trial.contract.chunk, i));
    }
  }
  trial.expect(true, "");
}

} // namespace

Property gradients_are_finite() {
  return {.name = "gradients-are-finite",
          .claim = "every gradient is a finite number wherever the exact one fits the format",
          .direction = Direction::backward,
          .everywhere = true,
          .check = tried<law>};
}

} // namespace kdacheck::laws
