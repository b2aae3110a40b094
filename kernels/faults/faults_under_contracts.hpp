#pragma once
// Faults of algebra and indexing once more, under contracts of lower precision and of another layout.

#include "faults.hpp"

namespace kdacheck::faults {

/// Each of them departs by more than its contract allows; "carry-dropped.of-bf16" is carry_dropped in bf16.
std::span<const FaultInfo> faults_under_contracts();

} // namespace kdacheck::faults
