#pragma once
// What is under test: the one interface that every kernel (CPU, CUDA, plug-in, planted fault) has.

#include "../reference/problem.hpp"
#include "../reference/tensor.hpp"
#include "contract.hpp"

#include <array>
#include <cstddef>
#include <functional>
#include <span>
#include <stdexcept>
#include <string>

namespace kdacheck {

/// What a kernel reads. Views may be absent (data == nullptr) as Options and the problem say. q, k, v, a, b, g and beta
/// may be strided in every dimension but the last, whose stride is 1, if the contract says strided=yes.
struct Inputs {
  Shape shape;
  Options options;
  std::array<TensorView, all_inputs.size()> tensor;
  std::span<const std::int64_t> cu_seqlens; ///< empty: B sequences of T tokens
  const TensorView& operator[](Input input) const { return tensor[static_cast<std::size_t>(input)]; }
  TensorView& operator[](Input input) { return tensor[static_cast<std::size_t>(input)]; }
  std::int64_t N() const { return cu_seqlens.empty() ? shape.B : static_cast<std::int64_t>(cu_seqlens.size()) - 1; }
};

/// What a forward pass writes, every element of it. final_state may be absent: then it is not wanted. The state's view
/// is [N,HV,K,V], or [N,HV,V,K] for a contract with state_layout=v_first; the same holds for initial_state.
struct Outputs {
  TensorView o;
  TensorView final_state;
};

/// What a backward pass reads besides the inputs; either may be absent (zero). d_o may be strided as the inputs may.
struct Cotangents {
  TensorView d_o;           ///< [B,T,HV,V] in the output's format
  TensorView d_final_state; ///< [N,HV,K,V] fp32
};

/// What a backward pass writes: by Input, in the shape of the primal; absent ones are not wanted. Gradients of tensors
/// shared by the value heads of a group (q, k) are summed over the group.
struct GradientOutputs {
  std::array<TensorView, all_inputs.size()> tensor;
  const TensorView& operator[](Input input) const { return tensor[static_cast<std::size_t>(input)]; }
  TensorView& operator[](Input input) { return tensor[static_cast<std::size_t>(input)]; }
};

/// A kernel refuses a call (with a sentence) by throwing this; it has then written nothing.
struct Refused : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// What a kernel in a process of its own did instead of answering. The campaign turns these into verdicts.
struct KernelCrashed : std::runtime_error {
  using std::runtime_error::runtime_error;
};
struct KernelTimedOut : std::runtime_error {
  using std::runtime_error::runtime_error;
};
/// It wrote where it must not; the harness reports the sentence as a trespass.
struct KernelTrespassed : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Forward and backward are called with a workspace of at least `workspace_bytes` (64-byte aligned, contents arbitrary).
/// They may be called from several threads at once.
/// A decode step is a forward pass over a few more tokens (contract.decode) of N = B sequences whose state moves on in
/// place: inputs' initial_state and outputs' final_state are the same memory. Its workspace is that of a forward pass.
struct Kernel {
  std::string name;    ///< "cpu.chunk64.bf16"
  std::string summary; ///< one line: algorithm and precision
  Contract contract;
  std::function<std::size_t(const Inputs&, bool backward)> workspace_bytes;
  std::function<void(const Inputs&, const Outputs&, std::span<std::byte> workspace)> forward;
  std::function<void(const Inputs&, const Cotangents&, const GradientOutputs&, std::span<std::byte> workspace)> backward; ///< empty: none
  std::function<void(const Inputs&, const Outputs&, std::span<std::byte> workspace)> decode{};                            ///< empty: none
  std::string unavailable{}; ///< why it cannot run on this machine, in a sentence; empty: it can
};

/// Every kernel built into the suite that is meant to be right, in the order in which reports list them.
std::span<const Kernel> built_in_kernels();

} // namespace kdacheck
