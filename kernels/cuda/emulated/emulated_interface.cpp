// The functions of kdacheck_cuda.h for KDA's chunk kernels on an emulated multiprocessor: a library that a program for libkdacheck_cuda.so
// can load where there is no GPU, with tensors in host memory. Streams mean nothing here: a call is over when it returns.

#include "emulated_calls.hpp"

using namespace kdacheck::cuda;

namespace {

/// Refuses kernels that are not emulated here.
template <class Run> kdacheck_cuda_result of_kernel(int kernel, Run run) {
  if (kernel == KDACHECK_CUDA_CHUNK_ACCURATE) return run.template operator()<true>();
  if (kernel == KDACHECK_CUDA_CHUNK_FAST) return run.template operator()<false>();
  return refuse(KDACHECK_CUDA_BAD_OPTION, "kernel: only the chunk kernels are emulated");
}

} // namespace

kdacheck_cuda_result kdacheck_cuda_device(void) { return {}; }

kdacheck_cuda_result kdacheck_cuda_workspace_bytes(int kernel, const kdacheck_cuda_problem* problem, size_t* bytes) {
  const CheckedCall call = check_call(kernel, problem);
  if (call.result.status == KDACHECK_CUDA_OK) *bytes = workspace_bytes(kernel, call.args);
  return call.result;
}

kdacheck_cuda_result kdacheck_cuda_forward(int kernel, const kdacheck_cuda_problem* problem, void*, size_t, void*) {
  return of_kernel(kernel, [&]<bool accurate> { return testing::emulated_forward<accurate>(*problem); });
}

kdacheck_cuda_result kdacheck_cuda_backward_workspace_bytes(int kernel, const kdacheck_cuda_problem* problem, size_t* bytes) {
  const CheckedBackward call = check_backward(kernel, problem, nullptr);
  if (call.result.status == KDACHECK_CUDA_OK) *bytes = backward_workspace_bytes(kernel, call.args);
  return call.result;
}

kdacheck_cuda_result kdacheck_cuda_backward(int kernel, const kdacheck_cuda_problem* problem, const kdacheck_cuda_gradients* gradients,
                                            void*, size_t, void*) {
  return of_kernel(kernel, [&]<bool accurate> { return testing::emulated_backward<accurate>(*problem, *gradients); });
}
