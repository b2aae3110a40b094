// scale meets q, and nothing else.

#include "../trial.hpp"

#include "../multiplied.hpp"

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  Problem other = trial.problem;
  const float factor = trial.pick(2) == 0 ? 2.0f : 0.5f;
  other.options.scale *= factor;
  const Run run = trial.forward(trial.problem), got = trial.forward(other);
  Run expected = multiplied(run, factor);
  expected.final_state = run.final_state;
  Run state_only;
  state_only.final_state = got.final_state;
  trial.expect_same(other, expected, state_only, "the final state, with the scale changed");
  if (scales_exactly(trial.contract) && !may_underflow(trial.problem))
    trial.expect_same(other, without_underflow(expected, factor), without_underflow(got, factor), "the scale doubled or halved");
  else
    trial.expect_true(other, got, "the scale doubled or halved");
}

} // namespace

Property linear_in_scale() {
  return {.name = "linear-in-scale",
          .claim = "doubling the scale doubles o (exactly where nothing underflows) and leaves the state alone",
          .check = tried<law>};
}

} // namespace kdacheck::laws
