#pragma once

#include "chunk.hpp"

namespace kdacheck::cpu {

std::size_t chunk_backward_bytes(const Contract&, const Inputs&);
void chunk_backward(const Contract&, const Inputs&, const Cotangents&, const GradientOutputs&, std::span<std::byte> workspace);

} // namespace kdacheck::cpu
