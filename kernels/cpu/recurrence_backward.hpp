#pragma once

#include "../kernel.hpp"

namespace kdacheck::cpu {

std::size_t recurrence_backward_bytes(const Contract&, const Inputs&);
void recurrence_backward(const Contract&, const Inputs&, const Cotangents&, const GradientOutputs&, std::span<std::byte> workspace);

} // namespace kdacheck::cpu
