#pragma once
// What a kernel can be handed its gate and its strengths in, drawn for regimes that are about something else.

#include "regime_drawing.hpp"

namespace kdacheck {

/// The gate in that form, with decays about `decay` per token (softplus: its customary initialisation times 20 decay; sigmoid: logits
/// that reach further the stronger the decay is). dt_bias is given in seven of ten cases.
void draw_gate(Recipe&, Dice&, GateForm, float decay);

} // namespace kdacheck
