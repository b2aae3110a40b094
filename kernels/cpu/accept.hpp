#pragma once

#include "../kernel.hpp"

namespace kdacheck::cpu {

/// Throws Refused with one sentence unless the call keeps to the contract: options, sizes, formats, strides, cu_seqlens.
/// Values are not looked at.
void accept(const Contract&, const Inputs&);

/// The same for what a forward pass writes.
void accept(const Contract&, const Inputs&, const Outputs&);

/// The same for what a backward pass reads and writes besides.
void accept(const Contract&, const Inputs&, const Cotangents&, const GradientOutputs&);

} // namespace kdacheck::cpu
