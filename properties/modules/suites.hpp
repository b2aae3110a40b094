#pragma once
// One line per module.

#include "module_suite.hpp"

namespace kdacheck {

ModuleSuite kda_layer_suite();

} // namespace kdacheck
