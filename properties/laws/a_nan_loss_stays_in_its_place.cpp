// Masked entries that are multiplied by zero let a NaN through, here forwards in time.

#include "../perturbed/trial.hpp"

#include <cmath>
#include <limits>

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  Recipe recipe = trial.recipe;
  recipe.loss = LossPattern::everywhere;
  const Problem problem = trial.make(recipe);

  const Sequence sequence = sequences(problem)[static_cast<std::size_t>(trial.longest(problem))];
  trial.applies_if(sequence.length >= 1, "no tokens");
  const std::int64_t token = trial.pick(sequence.length), head = trial.pick(problem.shape.HV), channel = trial.pick(problem.shape.V);
  const std::int64_t group = problem.shape.HV / problem.shape.H;
  Problem poisoned = problem;
  poisoned.d_o[static_cast<std::size_t>(((sequence.first + token) * problem.shape.HV + head) * problem.shape.V + channel)] =
      std::numeric_limits<float>::quiet_NaN();
  const Run clean = trial.backward(problem), got = trial.backward(poisoned);
  for (Input input : all_inputs) {
    const auto i = static_cast<std::size_t>(input);
    const bool shared = input == Input::q || input == Input::k;
    for (std::size_t e = 0; e < got.gradient[i].size(); ++e) {
      const Place place = place_of(input, problem, trial.contract.chunk, e);
      const bool own = (place.sequence < 0 || place.sequence == sequence.index) && place.head == (shared ? head / group : head);
      if (own && place.token <= token) continue;
      // later tokens of its own head matter to other terms of the loss, and must keep a number
      const bool holds =
          own ? std::isfinite(got.gradient[i][e]) || !std::isfinite(clean.gradient[i][e])
              : trial.contract.batch != Sameness::bitwise || same(clean.gradient[i][e], got.gradient[i][e], Equality::numbers);
      trial.expect(
          holds, "NaN in d_o of head " + std::to_string(head) + ", token " + std::to_string(token) + " reaches what does not depend on it",
          place);
    }
  }
}

} // namespace

Property a_nan_loss_stays_in_its_place() {
  return {.name = "a-nan-loss-stays-in-its-place",
          .claim = "a NaN in the loss on one output reaches no other head or sequence, and no later token",
          .direction = Direction::backward,
          .check = tried<law>};
}

} // namespace kdacheck::laws
