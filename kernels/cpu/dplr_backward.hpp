#pragma once

#include "dplr_chunk.hpp"

namespace kdacheck::cpu {

std::size_t dplr_backward_bytes(const Contract&, const Inputs&);
void dplr_backward(const Contract&, const Inputs&, const Cotangents&, const GradientOutputs&, std::span<std::byte> workspace);

} // namespace kdacheck::cpu
