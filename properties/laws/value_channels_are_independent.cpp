// Columns of the state never meet: tiles over V, their tails and vector loads must not show.

#include "../perturbed/trial.hpp"

#include <algorithm>

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  const Problem& problem = trial.problem;
  const std::int64_t V = problem.shape.V, channel = trial.pick(V);
  trial.applies_if(V >= 2, "only one value channel");
  Problem others = scaled(problem, {Input::v, Input::initial_state}, -2);
  for (Input input : {Input::v, Input::initial_state})
    for (std::size_t i = static_cast<std::size_t>(channel); i < problem[input].size(); i += static_cast<std::size_t>(V))
      others[input][i] = problem[input][i];
  trial.applies_if(trial.supports(others), "the other channels' values leave the kernel's domain");
  Choice one = everything(problem);
  one.value_channels = {channel};
  const Run run = trial.forward(problem);
  trial.expect_same(chosen(problem, one), chosen(run, problem, one), chosen(trial.forward(others), others, one),
                    "every channel of v and S_0 but " + std::to_string(channel) + " changed");

  Choice reversed = everything(problem);
  std::ranges::reverse(reversed.value_channels);
  const Problem turned = chosen(problem, reversed);
  trial.expect_true(problem, chosen(trial.forward(turned), turned, reversed), "value channels in reverse order");
}

} // namespace

Property value_channels_are_independent() {
  return {.name = "value-channels-are-independent",
          .claim = "a channel of o and of the state depends on that channel of v and S_0 alone",
          .check = tried<law>};
}

} // namespace kdacheck::laws
