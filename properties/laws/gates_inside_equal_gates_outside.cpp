// A bias read per head instead of per channel, a bound that was clamped to instead of multiplied with: the gate is where
// ports differ (mlx-lm #1792, tokenspeed #847).

#include "../perturbed/trial.hpp"

#include "../../reference/gate.hpp"

#include <algorithm>
#include <cmath>

namespace kdacheck::laws {
namespace {

bool is_parametric(GateForm form) { return form == GateForm::softplus || form == GateForm::bounded; }

float log_decay(const Problem& problem, double x, double A_log) {
  const double A = std::exp(A_log);
  return static_cast<float>(problem.options.gate == GateForm::softplus ? -A * softplus(x) : problem.options.lower_bound * sigmoid(A * x));
}

void law(Trial& trial) {
  const auto form = std::ranges::find_if(trial.contract.gates, [&](GateForm f) {
    return is_parametric(f) && (f == trial.recipe.options.gate || trial.recipe.options.gate == GateForm::log_decay);
  });
  trial.applies_if(form != trial.contract.gates.end(), "the kernel computes no such gate");
  Recipe recipe = trial.recipe;
  recipe.options.gate = *form;
  Problem inside = trial.make(recipe);
  trial.applies_if(is_parametric(inside.options.gate), "the case has no such gate");
  if (inside.dt_bias.empty()) inside.dt_bias.assign(static_cast<std::size_t>(inside.shape.HV * inside.shape.K), 0.5f);
  for (auto* values : {&inside.g, &inside.dt_bias}) // eighths below 4: exact in every format, and so is x + dt_bias
    for (float& x : *values) x = std::clamp(std::nearbyint(8 * x) / 8, -4.0f, 4.0f);

  Problem folded = inside;
  for (std::size_t i = 0; i < folded.g.size(); ++i) folded.g[i] += inside.dt_bias[i % inside.dt_bias.size()];
  folded.dt_bias.clear();
  trial.expect_true(inside, trial.forward(inside), "the gate inside");
  trial.expect_true(inside, trial.forward(folded), "the gate inside, its bias folded into x");

  Problem outside = folded;
  outside.options.gate = GateForm::log_decay;
  outside.A_log.clear();
  for (std::size_t i = 0; i < folded.g.size(); ++i)
    outside.g[i] =
        round_to(trial.contract.gate_input,
                 log_decay(inside, folded.g[i], inside.A_log[i / static_cast<std::size_t>(inside.shape.K) % inside.A_log.size()]));
  if (trial.supports(outside)) trial.expect_true(outside, trial.forward(outside), "the gate computed beforehand");
}

} // namespace

Property gates_inside_equal_gates_outside() {
  return {.name = "gates-inside-equal-gates-outside",
          .claim = "a gate computed in the kernel decays as its bias folded into its input, and as the log decay computed beforehand",
          .regimes = {"published-init", "trained-gates", "softplus-gate", "bounded-gate", "usual-decay"},
          .check = tried<law>};
}

} // namespace kdacheck::laws
