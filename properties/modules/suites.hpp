#pragma once
// One line per module.

#include "module_suite.hpp"

namespace kdacheck {

ModuleSuite gating_suite();
ModuleSuite state_manager_suite();
ModuleSuite transition_suite();
ModuleSuite general_transition_suite();
ModuleSuite chunkwise_suite();
ModuleSuite chunk_parts_suite();
ModuleSuite kda_layer_suite();
ModuleSuite mla_suite();
ModuleSuite hybrid_suite();

} // namespace kdacheck
