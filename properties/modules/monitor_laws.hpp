#pragma once
// What must hold of the spectral monitor, on cases of DPLRTransition: inputs alpha, k and beta, or d, a and b of the general form.

#include "module_suite.hpp"

#include <vector>

namespace kdacheck {

std::vector<ModuleLaw> monitor_laws();
std::vector<ModuleLaw> general_monitor_laws();

/// What the monitor proves of a case's transitions, and where the heuristic warns beside it.
std::vector<ModuleFigure> monitor_figures(const ModuleCase&);

} // namespace kdacheck
