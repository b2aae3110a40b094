#pragma once
// Calls a kernel on a problem with guarded memory and reads back what it wrote.

#include "../kernels/kernel.hpp"

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace kdacheck {

/// How buffers are laid out for one call.
struct RunOptions {
  bool final_state = true;           ///< ask for it
  std::uint32_t poison = 0x7fc5a5a5; ///< pattern that outputs and workspace hold before the call (a NaN in every format)
  std::optional<std::uint32_t> workspace_poison = std::nullopt; ///< of the workspace alone, if it differs
  bool strided = false;                                         ///< inputs and d_o with gaps between rows (needs strided=yes)
  std::uint32_t gap = 0x7fc0dead;                               ///< pattern in the gaps and in the canaries around every buffer
  std::array<bool, all_inputs.size()> not_wanted{};             ///< by Input: gradients that are not asked for
};

/// What a call left behind. Tensors are dense, state K-first, decoded to fp32 (exact).
struct Run {
  std::vector<float> o, final_state;
  std::array<std::vector<float>, all_inputs.size()> gradient; ///< by Input
  std::vector<std::string> trespasses;                        ///< "wrote 3 bytes past the end of o", "changed input k at [0,5,1,7]"
  std::optional<std::string> refused;                         ///< the kernel's own sentence
  const std::vector<float>& operator[](Output output) const { return output == Output::o ? o : final_state; }
};

/// Refusals, trespasses and results of one call. Buffers are 64-byte aligned and guarded on both sides; 16-bit formats are
/// poisoned with the upper half of the pattern. Throws std::invalid_argument if a tensor has a
/// wrong size or a number that the kernel's format does not have.
/// A kernel in a process of its own that died or hung lets KernelCrashed or KernelTimedOut through.
Run run_forward(const Kernel&, const Problem&, const RunOptions& = {});

/// One decode step over the problem's tokens (packed sequences are not for it): the state, zero where the problem has none,
/// moves on in place and is the run's final_state. Throws std::logic_error if the kernel has no decode step.
Run run_decode(const Kernel&, const Problem&, const RunOptions& = {});

/// Gradients to every tensor the problem has, but g and dt_bias where the contract says decay=head (then they are one number
/// a head, which their shapes cannot hold), for the problem's cotangents, d_o in the output's format (exact there: see
/// transform.hpp). Throws std::logic_error if the kernel has no backward.
Run run_backward(const Kernel&, const Problem&, const RunOptions& = {});

/// One call after the other on the very same memory, which holds another problem each time. Throws std::invalid_argument unless the
/// problems have the same sizes and tensors.
std::vector<Run> run_forward_in_turn(const Kernel&, std::span<const Problem>, const RunOptions& = {});
std::vector<Run> run_backward_in_turn(const Kernel&, std::span<const Problem>, const RunOptions& = {});

} // namespace kdacheck
