// The public functions: host checks, then the device's, then the launch.

#include "check.hpp"
#include "launch.hpp"
#include "transition_launch.hpp"

namespace kdacheck::cuda {
namespace {

kdacheck_cuda_result device_result() {
  int count = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&count); error != cudaSuccess || count == 0) {
    cudaGetLastError(); // leave no error behind for the caller's next call
    return refuse(KDACHECK_CUDA_NO_DEVICE, error != cudaSuccess ? cudaGetErrorString(error) : "no CUDA device");
  }
  int device = 0, major = 0, minor = 0;
  if (cudaGetDevice(&device) != cudaSuccess || cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess ||
      cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) != cudaSuccess) {
    const cudaError_t error = cudaGetLastError();
    return refuse(KDACHECK_CUDA_NO_DEVICE, cudaGetErrorString(error));
  }
  if (major != 9 || minor != 0) return refuse(KDACHECK_CUDA_OLD_DEVICE, "the device's compute capability is not 9.0");
  return {};
}

kdacheck_cuda_result check_pointers(const std::vector<const void*>& pointers) {
  for (const void* pointer : pointers) {
    cudaPointerAttributes attributes{};
    const cudaError_t error = cudaPointerGetAttributes(&attributes, pointer);
    if (error != cudaSuccess) cudaGetLastError();
    if (error != cudaSuccess || attributes.devicePointer == nullptr || attributes.type == cudaMemoryTypeHost)
      return refuse(KDACHECK_CUDA_NOT_DEVICE_MEMORY, "a tensor is not in device memory");
  }
  return {};
}

cudaError_t launch(int kernel, const CheckedCall& call, cudaStream_t stream) {
  switch (kernel) {
  case KDACHECK_CUDA_RECURRENCE: return launch_recurrence(call.args, stream);
  case KDACHECK_CUDA_CHUNK_FAST: return call.args.dplr ? launch_general_fast(call.args, stream) : launch_chunk_fast(call.args, stream);
  case KDACHECK_CUDA_CHUNK_ACCURATE: return launch_chunk_accurate(call.args, stream);
  default: return launch_decode(call.args, call.sequences, stream);
  }
}

} // namespace
} // namespace kdacheck::cuda

using namespace kdacheck::cuda;

kdacheck_cuda_result kdacheck_cuda_device(void) { return device_result(); }

kdacheck_cuda_result kdacheck_cuda_workspace_bytes(int kernel, const kdacheck_cuda_problem* problem, size_t* bytes) {
  if (bytes == nullptr) return refuse(KDACHECK_CUDA_NULL_POINTER, "bytes is a null pointer");
  const CheckedCall call = check_call(kernel, problem);
  if (call.result.status == KDACHECK_CUDA_OK) *bytes = workspace_bytes(kernel, call.args);
  return call.result;
}

kdacheck_cuda_result kdacheck_cuda_forward(int kernel, const kdacheck_cuda_problem* problem, void* workspace, size_t workspace_size,
                                           void* stream) {
  CheckedCall call = check_call(kernel, problem);
  if (call.result.status != KDACHECK_CUDA_OK) return call.result;
  const size_t due = workspace_bytes(kernel, call.args);
  if (workspace_size < due || (due > 0 && workspace == nullptr)) return refuse(KDACHECK_CUDA_SMALL_WORKSPACE, "the workspace is too small");
  if (due > 0 && reinterpret_cast<std::uintptr_t>(workspace) % 256 != 0)
    return refuse(KDACHECK_CUDA_BAD_LAYOUT, "the workspace must be aligned to 256 bytes");
  if (due > 0) call.device_pointers.push_back(workspace), call.args.handover = static_cast<unsigned char*>(workspace);
  if (const auto result = device_result(); result.status != KDACHECK_CUDA_OK) return result;
  if (const auto result = check_pointers(call.device_pointers); result.status != KDACHECK_CUDA_OK) return result;
  const cudaError_t error = launch(kernel, call, static_cast<cudaStream_t>(stream));
  if (error != cudaSuccess) {
    cudaGetLastError();
    return refuse(KDACHECK_CUDA_LAUNCH_FAILED, cudaGetErrorString(error));
  }
  return call.result;
}

kdacheck_cuda_result kdacheck_cuda_gates(const kdacheck_cuda_gates_call* wanted, void* stream) {
  const CheckedGates call = check_gates(wanted);
  if (call.result.status != KDACHECK_CUDA_OK) return call.result;
  if (const auto result = device_result(); result.status != KDACHECK_CUDA_OK) return result;
  if (const auto result = check_pointers(call.device_pointers); result.status != KDACHECK_CUDA_OK) return result;
  if (const cudaError_t error = launch_gates(call.args, static_cast<cudaStream_t>(stream)); error != cudaSuccess) {
    cudaGetLastError();
    return refuse(KDACHECK_CUDA_LAUNCH_FAILED, cudaGetErrorString(error));
  }
  return call.result;
}

kdacheck_cuda_result kdacheck_cuda_transition(const kdacheck_cuda_transition_call* transition, void* stream) {
  const CheckedTransition call = check_transition(transition);
  if (call.result.status != KDACHECK_CUDA_OK) return call.result;
  if (const auto result = device_result(); result.status != KDACHECK_CUDA_OK) return result;
  if (const auto result = check_pointers(call.device_pointers); result.status != KDACHECK_CUDA_OK) return result;
  if (const cudaError_t error = launch_transition(call.args, static_cast<cudaStream_t>(stream)); error != cudaSuccess) {
    cudaGetLastError();
    return refuse(KDACHECK_CUDA_LAUNCH_FAILED, cudaGetErrorString(error));
  }
  return call.result;
}

kdacheck_cuda_result kdacheck_cuda_backward_workspace_bytes(int kernel, const kdacheck_cuda_problem* problem, size_t* bytes) {
  if (bytes == nullptr) return refuse(KDACHECK_CUDA_NULL_POINTER, "bytes is a null pointer");
  const CheckedBackward call = check_backward(kernel, problem, nullptr);
  if (call.result.status == KDACHECK_CUDA_OK) *bytes = backward_workspace_bytes(kernel, call.args);
  return call.result;
}

kdacheck_cuda_result kdacheck_cuda_backward(int kernel, const kdacheck_cuda_problem* problem, const kdacheck_cuda_gradients* gradients,
                                            void* workspace, size_t workspace_size, void* stream) {
  if (gradients == nullptr) return refuse(KDACHECK_CUDA_NULL_POINTER, "gradients is a null pointer");
  CheckedBackward call = check_backward(kernel, problem, gradients);
  if (call.result.status != KDACHECK_CUDA_OK) return call.result;
  const size_t due = backward_workspace_bytes(kernel, call.args);
  if (workspace_size < due || (due > 0 && workspace == nullptr)) return refuse(KDACHECK_CUDA_SMALL_WORKSPACE, "the workspace is too small");
  if (reinterpret_cast<std::uintptr_t>(workspace) % 256 != 0)
    return refuse(KDACHECK_CUDA_BAD_LAYOUT, "the workspace must be aligned to 256 bytes");
  if (due > 0) call.device_pointers.push_back(workspace);
  if (const auto result = device_result(); result.status != KDACHECK_CUDA_OK) return result;
  if (const auto result = check_pointers(call.device_pointers); result.status != KDACHECK_CUDA_OK) return result;
  call.args.workspace = static_cast<unsigned char*>(workspace);
  const auto launch = kernel == KDACHECK_CUDA_RECURRENCE   ? launch_recurrence_backward
                      : kernel == KDACHECK_CUDA_CHUNK_FAST ? launch_backward_fast
                                                           : launch_backward_accurate;
  if (const cudaError_t error = launch(call.args, static_cast<cudaStream_t>(stream)); error != cudaSuccess) {
    cudaGetLastError();
    return refuse(KDACHECK_CUDA_LAUNCH_FAILED, cudaGetErrorString(error));
  }
  return call.result;
}
