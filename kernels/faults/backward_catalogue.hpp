#pragma once

#include "faults.hpp"

namespace kdacheck::faults {

/// The faults of the backward pass, for `planted_faults`.
std::span<const FaultInfo> backward_faults();

} // namespace kdacheck::faults
