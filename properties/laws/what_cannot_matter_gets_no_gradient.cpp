// Gradients summed over the wrong axis, or carried over a boundary: dg of all heads was once polluted by the gradient of
// one state (flash-linear-attention 31293264).

#include "../perturbed/trial.hpp"

#include <fmt/format.h>

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  Recipe recipe = trial.recipe;
  recipe.loss = LossPattern::outputs_only;
  Problem problem = trial.make(recipe);
  problem.d_final_state.clear();
  const Sequence sequence = sequences(problem)[static_cast<std::size_t>(trial.longest(problem))];
  trial.applies_if(sequence.length >= 1 && !problem.d_o.empty(), "no tokens");
  const std::int64_t last = trial.pick(sequence.length), head = trial.pick(problem.shape.HV), group = problem.shape.HV / problem.shape.H;
  for (std::size_t i = 0; i < problem.d_o.size(); ++i) {
    const Place place = place_of(Output::o, problem, 1, i);
    if (place.sequence != sequence.index || place.head != head || place.token > last) problem.d_o[i] = 0;
  }
  const Run run = trial.backward(problem);
  for (Input input : all_inputs) {
    const auto& gradient = run.gradient[static_cast<std::size_t>(input)];
    const bool shared = input == Input::q || input == Input::k;
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      const Place place = place_of(input, problem, trial.contract.chunk, i);
      const bool matters =
          (place.sequence < 0 || place.sequence == sequence.index) && place.head == (shared ? head / group : head) && place.token <= last;
      trial.expect(matters || gradient[i] == 0, fmt::format("{:.9g} where the loss depends on nothing", gradient[i]), place);
    }
  }
}

} // namespace

Property what_cannot_matter_gets_no_gradient() {
  return {.name = "what-cannot-matter-gets-no-gradient",
          .claim = "tokens after the last one in the loss, and heads and sequences outside it, get gradients of exactly zero",
          .direction = Direction::backward,
          .check = tried<law>};
}

} // namespace kdacheck::laws
