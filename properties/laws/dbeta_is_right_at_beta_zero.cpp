// dbeta is m^T (v - S^T k), whatever beta is; kernels that recover the residual by dividing by beta lose it.

#include "../perturbed/trial.hpp"

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  Recipe recipe = trial.plain();
  recipe.loss = LossPattern::everywhere;
  Problem problem = trial.make(recipe);
  trial.applies_if(problem.options.rule == Rule::kda, "DPLR has no beta");
  for (float& beta : problem.beta)
    if (trial.pick(3) > 0) beta = 0;
  trial.applies_if(trial.supports(problem), "beta 0 is outside the kernel's domain");
  trial.expect_true_gradients(problem, trial.backward(problem), "two tokens in three with beta 0");
}

} // namespace

Property dbeta_is_right_at_beta_zero() {
  return {.name = "dbeta-is-right-at-beta-zero",
          .claim = "tokens with beta exactly 0 have the gradient of beta that the recurrence gives",
          .direction = Direction::backward,
          .regimes = {"usual-decay", "beta-zero", "beta-tiny", "converged-memory"},
          .check = tried<law>};
}

} // namespace kdacheck::laws
