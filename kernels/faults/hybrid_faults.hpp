#pragma once
// Hybrid stacks that are wrong on purpose: the pattern, the residual blocks, states between calls, gradients.
// Origins as in layer_faults.hpp.

#include "../modules/hybrid_module.hpp"

#include <span>
#include <string_view>

namespace kdacheck {

struct HybridFaultInfo {
  std::string_view name, origin, what;
};

std::span<const HybridFaultInfo> hybrid_faults();

/// The stack with the fault of that name. Throws std::out_of_range for an unknown one.
modules::Module faulty_hybrid(std::string_view fault, const modules::HybridStack&, const Kernel&, std::int64_t capacity);

} // namespace kdacheck
