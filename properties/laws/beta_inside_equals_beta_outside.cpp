// sigmoid, 2 sigmoid, or the value: interfaces differ, and a missing or doubled sigmoid looks plausible.

#include "../perturbed/trial.hpp"

#include <algorithm>
#include <array>

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  const auto& forms = trial.contract.betas;
  const auto form = std::ranges::find_if(forms, [](BetaForm f) { return f != BetaForm::value; });
  trial.applies_if(form != forms.end(), "the kernel takes no logits of beta");
  trial.applies_if(std::ranges::find(forms, BetaForm::value) != forms.end(), "the kernel takes logits of beta only");
  const bool twice = std::ranges::find(forms, BetaForm::twice_sigmoid) != forms.end() && trial.contract.beta_max >= 2 && trial.pick(2) == 0;
  Recipe recipe = trial.recipe;
  recipe.options.beta = BetaForm::value;
  Problem outside = trial.make(recipe);
  trial.applies_if(outside.options.rule == Rule::kda, "DPLR has no beta");
  Problem inside = outside;
  inside.options.beta = twice ? BetaForm::twice_sigmoid : *form;
  const float whole = inside.options.beta == BetaForm::twice_sigmoid ? 2 : 1;
  for (std::size_t i = 0; i < outside.beta.size(); ++i) {
    const auto choice = static_cast<std::size_t>(trial.pick(3));
    inside.beta[i] = std::array{0.0f, 64.0f, -256.0f}[choice]; // e^-64 < 2^-92 and e^-256 < 2^-369 vanish in fp32
    outside.beta[i] = whole * std::array{0.5f, 1.0f, 0.0f}[choice];
  }
  trial.applies_if(trial.supports(inside), "outside the kernel's domain");
  trial.expect_true(outside, trial.forward(inside), "beta from logits");
  trial.expect_true(outside, trial.forward(outside), "beta itself");
}

} // namespace

Property beta_inside_equals_beta_outside() {
  return {.name = "beta-inside-equals-beta-outside",
          .claim = "logits of 0, far above and far below give the strengths 1/2, 1, 0 (twice that where declared)",
          .regimes = {"beta-logits", "usual-decay", "grouped-heads"},
          .check = tried<law>};
}

} // namespace kdacheck::laws
