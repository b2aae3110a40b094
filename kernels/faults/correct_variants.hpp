#pragma once
// Kernels that are right, under contracts that differ in formats, order, chunk length, layout and sums: the gate must refuse
// none of them.

#include "../kernel.hpp"

#include <span>

namespace kdacheck {

/// The kernel of the planted faults without a fault, and the CPU kernels under contracts that no built-in kernel declares.
/// Every one takes all gates, strengths, l2norm inside or outside, and strides.
std::span<const Kernel> correct_variants();

} // namespace kdacheck
