// scale meets q, and nothing else. Queries of any size do the same to o.

#include "../perturbed/trial.hpp"

#include "../perturbed/multiplied.hpp"
#include "../transform.hpp"

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
  // every format and every rounding has two signs alike
  Problem negated = trial.problem;
  negated.options.scale = -negated.options.scale;
  Run opposite = multiplied(run, -1);
  opposite.final_state = run.final_state;
  trial.expect_same(negated, opposite, trial.forward(negated), "the scale negated");
  if (trial.problem.options.l2norm || !scales_exactly(trial.contract)) return;
  const float far = trial.pick(2) == 0 ? 1024.0f : 0x1p-10f;
  const Problem queries = scaled(trial.problem, {Input::q}, far);
  if (!trial.supports(queries) || may_underflow(queries)) return;
  Run followed = multiplied(run, far);
  followed.final_state = run.final_state;
  trial.expect_same(queries, without_underflow(followed, far), without_underflow(trial.forward(queries), far),
                    "queries of a thousand times or a thousandth of their size");
}

} // namespace

Property linear_in_scale() {
  return {.name = "linear-in-scale",
          .claim = "o follows the scale's sign exactly, its powers of two and those of q where nothing underflows, and the state does not",
          .check = tried<law>};
}

} // namespace kdacheck::laws
