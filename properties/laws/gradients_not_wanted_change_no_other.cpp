// Any gradient may be left out of a call: what is not wanted is not computed, and what others need of it must be all the same. Frozen
// gates and inference-time tuning ask for few.

#include "../perturbed/trial.hpp"

#include <algorithm>

namespace kdacheck::laws {
namespace {

std::string names_of(const RunOptions& options) {
  std::string names;
  for (Input input : all_inputs)
    if (options.not_wanted[static_cast<std::size_t>(input)]) names += (names.empty() ? "d" : ", d") + std::string(name(input));
  return names;
}

void law(Trial& trial) {
  Recipe recipe = trial.recipe;
  recipe.loss = LossPattern::everywhere;
  const Problem problem = trial.make(recipe);
  const Run all = trial.backward(problem);
  std::vector<std::size_t> there;
  for (std::size_t i = 0; i < all.gradient.size(); ++i)
    if (!all.gradient[i].empty()) there.push_back(i);
  const auto count = static_cast<std::int64_t>(there.size());
  trial.applies_if(count > 1, "no two gradients to choose from");

  std::array<RunOptions, 2> calls; // without one; with one alone, or about half
  calls[0].not_wanted[there[static_cast<std::size_t>(trial.pick(count))]] = true;
  const bool alone = trial.pick(2) == 0;
  for (const std::size_t i : there) calls[1].not_wanted[i] = alone || trial.pick(2) == 0;
  calls[1].not_wanted[there[static_cast<std::size_t>(trial.pick(count))]] = false;
  for (const RunOptions& options : calls) {
    Run expected = all;
    for (const std::size_t i : there)
      if (options.not_wanted[i]) expected.gradient[i].clear();
    trial.expect_same_or_true_gradients(trial.contract.repeat, problem, expected, trial.backward(problem, options),
                                        names_of(options) + " not wanted", Equality::bits);
  }
}

} // namespace

Property gradients_not_wanted_change_no_other() {
  return {.name = "gradients-not-wanted-change-no-other",
          .claim = "a gradient has the same bits whichever of the others are asked for",
          .direction = Direction::backward,
          .in_every_round = true,
          .check = tried<law>};
}

} // namespace kdacheck::laws
