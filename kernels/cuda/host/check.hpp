#pragma once
// Host side of the public interface: what can be said about a call without a device.

#include "../kdacheck_cuda.h"
#include "transition_arguments.hpp"

#include <vector>

namespace kdacheck::cuda {

/// A result with its sentence.
kdacheck_cuda_result refuse(kdacheck_cuda_status status, const char* sentence);

bool is_chunk(int kernel);

/// What a tensor must be like, and where its view goes.
struct TensorRule {
  const char* name;
  const kdacheck_cuda_tensor* tensor;
  std::int64_t heads, channels;
  bool due;
  View* view;
  bool written = false; ///< an output: rows must not overlap
};
kdacheck_cuda_result check_tensor(int kernel, const kdacheck_cuda_problem&, const TensorRule&);

struct CheckedCall {
  kdacheck_cuda_result result{};
  ForwardArguments args; ///< valid if result.status is KDACHECK_CUDA_OK
  std::int64_t sequences = 0;
  std::vector<const void*> device_pointers; ///< all that must be device memory
};

/// Shapes, formats, options, layout, sequences; not what the pointers point to.
/// A backward pass does not use o and final_state.
CheckedCall check_call(int kernel, const kdacheck_cuda_problem*, bool backward = false);

/// Workspace of a checked call: what gangs of the fast chunk kernel hand over (chunk_shifts.cuh).
std::size_t workspace_bytes(int kernel, const ForwardArguments&);

struct CheckedBackward {
  kdacheck_cuda_result result{};
  BackwardArguments args; ///< valid if result.status is KDACHECK_CUDA_OK
  std::vector<const void*> device_pointers;
};

/// Gradients may be null: then only the problem is checked, as for the size of the workspace.
CheckedBackward check_backward(int kernel, const kdacheck_cuda_problem*, const kdacheck_cuda_gradients*);

struct CheckedGates {
  kdacheck_cuda_result result{};
  GateArguments args; ///< valid if result.status is KDACHECK_CUDA_OK
  std::vector<const void*> device_pointers;
};
CheckedGates check_gates(const kdacheck_cuda_gates_call*);

struct CheckedTransition {
  kdacheck_cuda_result result{};
  TransitionArguments args; ///< valid if result.status is KDACHECK_CUDA_OK
  std::vector<const void*> device_pointers;
};
CheckedTransition check_transition(const kdacheck_cuda_transition_call*);

/// cu_seqlens, against B and T.
kdacheck_cuda_result check_sequences(int kernel, const kdacheck_cuda_problem&);

/// Workspace of a checked backward call.
std::size_t backward_workspace_bytes(int kernel, const BackwardArguments&);

} // namespace kdacheck::cuda
