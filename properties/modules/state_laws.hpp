#pragma once
// What a manager of states promises, checked on its commands.

#include "module_suite.hpp"

#include <vector>

namespace kdacheck {

/// Laws of StateManager; they plant the case's fault themselves (kernels/faults/state_faults.hpp).
std::vector<ModuleLaw> state_laws();

} // namespace kdacheck
