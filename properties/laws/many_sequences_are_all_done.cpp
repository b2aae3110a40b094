// More (sequence, head) pairs than a grid's second dimension holds: some kernels fail to launch, others drop the rest
// (flash-linear-attention b9afc14a).

#include "../perturbed/trial.hpp"

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  trial.applies_if(trial.contract.packed, "the kernel takes no packed sequences");
  Recipe recipe = trial.recipe;
  recipe.shape = {.B = 1, .T = 2100, .H = 1, .HV = 32, .K = 4, .V = 4};
  recipe.state = StatePattern::absent;
  recipe.lengths.assign(2100, 1);
  recipe.lengths[1000] = 0;
  recipe.lengths[2099] = 2;
  const Recipe fits = fitted(recipe, trial.contract);
  trial.applies_if(fits.shape.K * fits.shape.V <= 1024, "the kernel's least sizes make this case too large");
  const Problem problem = trial.make(recipe);
  const Run run = trial.forward(problem, {.final_state = false});
  for (const std::int64_t n : {std::int64_t{0}, trial.pick(2100), std::int64_t{2047}, std::int64_t{2099}}) {
    const Choice only = alone(problem, n);
    const Problem single = chosen(problem, only);
    if (!trial.supports(single)) continue;
    trial.expect_same_or_true(trial.contract.batch, single, trial.forward(single, {.final_state = false}), chosen(run, problem, only),
                              "sequence " + std::to_string(n) + " of 2100");
  }
}

} // namespace

Property many_sequences_are_all_done() {
  return {.name = "many-sequences-are-all-done",
          .claim = "two thousand one-token sequences with many heads get what each gets alone",
          .regimes = {"packed-single-tokens"},
          .check = tried<law>};
}

} // namespace kdacheck::laws
