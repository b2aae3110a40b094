#pragma once
// The backward pass of the kernel of faults.hpp: sequences, heads, chunks, and what lies outside a chunk.

#include "placed_faults.hpp"

namespace kdacheck::faults {

/// One backward call and the fault that is planted in it, if any.
struct BackwardCall {
  const Inputs& in;
  const Cotangents& cotangents;
  const GradientOutputs& out;
  const Contract& contract;
  const Fault fault;
  const SumTree tree = SumTree::rising;
  const Placement where{};
  bool on(Fault which) const { return fault == which; }
};

void backward(const BackwardCall&, std::span<std::byte> workspace);

/// The sequences of a call, empty ones included.
std::vector<Sequence> sequences_of(const Inputs&);

/// Trespasses and leaks of faults, after everything else has been written.
void misbehave(const BackwardCall&, std::span<std::byte> workspace);

} // namespace kdacheck::faults
