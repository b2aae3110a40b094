// Kernels rescale decays by an anchor; one taken from a later row changes the rounding of earlier outputs, which
// shows in no tolerance but breaks cached and speculative decoding.

#include "../perturbed/trial.hpp"

namespace kdacheck::laws {
namespace {

// Other keys, queries, values and strengths, and gates that are half as far from one.
Problem other_tokens(Trial& trial) {
  Recipe recipe = trial.recipe;
  recipe.seed = ~recipe.seed;
  Problem other = make_problem(recipe, input_formats(trial.contract));
  other = scaled(std::move(other), {Input::q, Input::v}, -1);
  return scaled(std::move(other), {Input::g}, 0.5f);
}

void law(Trial& trial) {
  const Problem& problem = trial.problem;
  const std::int64_t length = sequences(problem)[static_cast<std::size_t>(trial.longest(problem))].length;
  trial.applies_if(length >= 2, "a single token has no future");
  const std::int64_t from = 1 + trial.pick(length - 1);
  const Problem changed = spliced(problem, other_tokens(trial), from);
  const Choice past = prefix(problem, from);
  const Problem before = chosen(problem, past);
  Run expected = chosen(trial.forward(problem, {.final_state = false}), problem, past);
  Run got = chosen(trial.forward(changed, {.final_state = false}), changed, past);
  trial.expect_same_or_true(trial.contract.prefix, before, expected, got, "tokens from " + std::to_string(from) + " on changed");
}

} // namespace

Property future_tokens_change_nothing_before_them() {
  return {.name = "future-tokens-change-nothing-before-them",
          .claim = "changing later tokens leaves every bit of earlier outputs as it was",
          .check = tried<law>};
}

} // namespace kdacheck::laws
