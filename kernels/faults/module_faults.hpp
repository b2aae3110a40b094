#pragma once
// Faults of the modules around KDA, by module: gating, the transition, chunks.

#include "../modules/module.hpp"

#include <span>
#include <string_view>

namespace kdacheck {

struct ModuleFaultInfo {
  std::string_view module, name, origin, what;
};

std::span<const ModuleFaultInfo> module_faults();

/// The module with the fault of that name. Throws std::out_of_range for an unknown one.
modules::Module faulty_module(std::string_view fault, modules::Module right);

} // namespace kdacheck
