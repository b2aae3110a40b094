#pragma once
// Kernels that are right, under contracts that differ in formats, order, chunk length, layout and sums: the gate must refuse
// none of them.

#include "../kernel.hpp"

#include <span>
#include <string>

namespace kdacheck {

/// The kernel of the planted faults without a fault, and the CPU kernels under contracts that no built-in kernel declares.
/// Every one takes all gates, strengths, l2norm inside or outside, and strides.
std::span<const Kernel> correct_variants();

/// A right kernel under a contract: the readable one of the planted faults, or where that computes something else a CPU kernel.
Kernel right_under(std::string name, const Contract&);

} // namespace kdacheck
