#include "forms.hpp"

#include <algorithm>

namespace kdacheck {

void draw_gate(Recipe& recipe, Dice& dice, GateForm form, float decay) {
  recipe.options.gate = form;
  recipe.decay = decay;
  recipe.gate_bias = dice.chance(0.7);
  if (form != GateForm::log_decay && form != GateForm::absent) recipe.gate_model = form;
  switch (form) {
  case GateForm::absent: recipe.decay = 0; break;
  case GateForm::bounded:
    recipe.options.lower_bound = -dice.uniform(2.5f, 5.0f);
    recipe.decay = std::min(decay, 2.0f); // twice as much at most, which is above the bound
    break;
  case GateForm::softplus:
    recipe.gates = GatePattern::published_init;
    recipe.decay = std::clamp(20 * decay, 0.05f, 4.0f);
    recipe.decay_spread = 1;
    break;
  case GateForm::sigmoid:
    recipe.gates = GatePattern::logits;
    recipe.decay = dice.uniform(0.5f, 4.0f);
    recipe.decay_center = static_cast<float>(std::clamp(-portable::log(decay), 0.0, 5.0)); // alpha there is 1 / (1 + decay)
    break;
  default: break;
  }
}

} // namespace kdacheck
