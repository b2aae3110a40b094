#pragma once
// The kernels of the suite that are right, by name.

#include "../kernels/kernel.hpp"

#include <string>
#include <vector>

namespace kdacheck {

/// Built-in kernels, and the correct variants under contracts that none of those has, whose names match one of the patterns; no
/// patterns: all. Throws UsageError for a pattern that nothing matches.
std::vector<const Kernel*> right_kernels(const std::vector<std::string>& patterns);

} // namespace kdacheck
