// Rounding to nearest (or towards zero) commutes with the sign and, away from overflow and underflow, with powers of two;
// fp16 has too short a range for the latter, so it is judged.

#include "../perturbed/trial.hpp"

#include "../perturbed/multiplied.hpp"

#include <algorithm>

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  const std::initializer_list<Input> linear{Input::v, Input::initial_state};
  const Problem& problem = trial.problem;
  const Run run = trial.forward(problem);
  trial.expect_same(problem, multiplied(run, -1), trial.forward(scaled(problem, linear, -1)), "values and state negated");
  Run nothing = run; // not 0 times the run, which may hold an overflow of the output's format
  for (auto* values : {&nothing.o, &nothing.final_state}) std::ranges::fill(*values, 0.0f);
  trial.expect_same(problem, nothing, trial.forward(scaled(problem, linear, 0)), "values and state zero");

  const float factor = trial.pick(2) == 0 ? 2.0f : 16.0f;
  const Problem larger = scaled(problem, linear, factor);
  if (!trial.supports(larger)) return;
  const Run got = trial.forward(larger);
  if (scales_exactly(trial.contract) && !may_underflow(problem))
    trial.expect_same(larger, without_underflow(multiplied(run, factor), factor), without_underflow(got, factor),
                      "values and state doubled");
  else
    trial.expect_true(larger, got, "values and state multiplied by a power of two");
}

} // namespace

Property linear_in_values_and_state() {
  return {.name = "linear-in-values-and-state",
          .claim = "o and the state are linear in (v, S_0): signs and zero pass through exactly, powers of two where nothing underflows",
          .check = tried<law>};
}

} // namespace kdacheck::laws
