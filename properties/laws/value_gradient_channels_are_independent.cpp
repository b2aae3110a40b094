// Columns of the state and of its gradient never meet.

#include "../perturbed/trial.hpp"

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  Recipe recipe = trial.recipe;
  recipe.loss = LossPattern::everywhere;
  const Problem problem = trial.make(recipe);

  const auto V = static_cast<std::size_t>(problem.shape.V), channel = static_cast<std::size_t>(trial.pick(problem.shape.V));
  trial.applies_if(V >= 2, "only one value channel");
  Problem others = problem;
  for (auto* loss : {&others.d_o, &others.d_final_state})
    for (std::size_t i = 0; i < loss->size(); ++i)
      if (i % V != channel) (*loss)[i] *= -2;
  Choice one = everything(problem);
  one.value_channels = {static_cast<std::int64_t>(channel)};
  Run expected = chosen(trial.backward(problem), problem, one), got = chosen(trial.backward(others), problem, one);
  for (Run* run : {&expected, &got})
    for (Input input : all_inputs)
      if (input != Input::v && input != Input::initial_state) run->gradient[static_cast<std::size_t>(input)].clear();
  trial.expect_same(chosen(problem, one), expected, got, "every channel of the loss but " + std::to_string(channel) + " changed");
}

} // namespace

Property value_gradient_channels_are_independent() {
  return {.name = "value-gradient-channels-are-independent",
          .claim = "a channel of dv and of dh0 depends on that channel of the loss alone",
          .direction = Direction::backward,
          .check = tried<law>};
}

} // namespace kdacheck::laws
