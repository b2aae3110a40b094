#pragma once
// A module's oracle over a call cut into pieces, as a program that decodes or splits a sequence runs the module.

#include "module_budget.hpp"

namespace kdacheck {

/// Outputs and states, or gradients, of the whole call from calls of its pieces; states and their gradients are rounded to
/// fp32 between pieces. `states` gives names and shapes of the module's states, [N,...] each.
ExactTensors evaluated_in_pieces(const ModuleCase&, const modules::ModuleCotangents*, const ModuleArithmetic&, const Cuts&,
                                 const modules::NamedTensors& states);

} // namespace kdacheck
