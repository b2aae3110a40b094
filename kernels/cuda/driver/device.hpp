#pragma once
// Device tensors of the driver, filled with random numbers.

#include "../kdacheck_cuda.h"

#include <cstdint>
#include <cuda_runtime_api.h>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace kdacheck::cuda {

inline void require(cudaError_t error, const char* what) {
  if (error != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}
inline void require(const kdacheck_cuda_result& result) {
  if (result.status != KDACHECK_CUDA_OK) throw std::runtime_error(result.text);
}

/// A random tensor repeats so many numbers.
inline constexpr std::int64_t pool_numbers = 1000003;

struct FreeDevice {
  void operator()(void* pointer) const { cudaFree(pointer); }
};
using DeviceMemory = std::unique_ptr<void, FreeDevice>;

DeviceMemory allocate(std::size_t bytes);

/// bf16 numbers mean + deviation * normal, from a pool of a few million repeated at odd offsets.
DeviceMemory random_bf16(std::int64_t count, float mean, float deviation, unsigned seed);
DeviceMemory random_fp32(std::int64_t count, float mean, float deviation, unsigned seed);

/// All tensors of one problem with the options of the targets: bf16 tensors, bounded gate, l2norm, sigmoid of beta, fp32 final state.
/// `dplr`: a and b, of norm 1/2, instead of beta. `group`: value heads of a key head.
struct DeviceProblem {
  std::vector<DeviceMemory> memory;
  kdacheck_cuda_problem problem{};
  DeviceMemory workspace; ///< enough for every forward kernel
  std::size_t workspace_bytes = 0;
  /// Enqueues a forward pass.
  kdacheck_cuda_result forward(int kernel, void* stream) const { return forward(kernel, problem, stream); }
  /// Of a problem like this one, of the same size or smaller.
  kdacheck_cuda_result forward(int kernel, const kdacheck_cuda_problem& like, void* stream) const {
    return kdacheck_cuda_forward(kernel, &like, workspace.get(), workspace_bytes, stream);
  }
};
DeviceProblem make_problem(std::int64_t B, std::int64_t T, std::int64_t H, std::int64_t K, std::int64_t V, unsigned seed,
                           bool decode = false, bool dplr = false, std::int64_t group = 1);

/// A call of the gate's kernel alone, bf16 in, both outputs in fp32, K 128 and chunks of 64 (gates.cpp).
struct DeviceGates {
  std::shared_ptr<const void> memory;
  kdacheck_cuda_gates_call call;
};
DeviceGates make_gates(std::int64_t T, std::int64_t HV);

/// A call of the transition alone, one token, bf16 rows and fp32 states, K = V = 128 (transition.cpp).
struct DeviceTransition {
  std::shared_ptr<const void> memory;
  kdacheck_cuda_transition_call call;
};
DeviceTransition make_transition(std::int64_t B, std::int64_t HV);

/// Cotangents and all gradients of a problem, in bf16 (states and parameters fp32), and the workspace.
struct DeviceGradients {
  std::vector<DeviceMemory> memory;
  DeviceMemory workspace;
  std::size_t workspace_bytes = 0;
  kdacheck_cuda_gradients gradients{};
  std::vector<std::pair<void*, std::size_t>> outputs;
};
DeviceGradients make_gradients(int kernel, const DeviceProblem&, unsigned seed);

} // namespace kdacheck::cuda
