// Kernels on a real CUDA device through the C interface: the token recurrence, one block for each sequence and head, one
// thread for each value column, fp32; and three that misbehave as only device code can. cuda_plugin_test.py judges them.
#include "kdacheck_plugin.h"

#include <cuda_runtime.h>

#include <cstdio>

namespace {

__device__ const float* row(const kdacheck_tensor& x, int64_t b, int64_t t, int64_t h) {
  return static_cast<const float*>(x.data) + b * x.stride[0] + t * x.stride[1] + h * x.stride[2];
}

__global__ void recurrence(kdacheck_inputs in, kdacheck_outputs out, float* workspace) {
  const int64_t n = blockIdx.x, head = blockIdx.y, key_head = head / (in.HV / in.H), K = in.K, V = in.V;
  const int64_t first = in.cu_seqlens ? in.cu_seqlens[n] : 0, last = in.cu_seqlens ? in.cu_seqlens[n + 1] : in.T;
  const int64_t b = in.cu_seqlens ? 0 : n, state = (n * in.HV + head) * K * V;
  const float* initial = static_cast<const float*>(in.initial_state.data);
  float *final_state = static_cast<float*>(out.final_state.data), *S = workspace + state;
  for (int64_t j = threadIdx.x; j < V; j += blockDim.x) {
    for (int64_t c = 0; c < K; ++c) S[c * V + j] = initial ? initial[state + c * V + j] : 0;
    for (int64_t t = first; t < last; ++t) {
      const float *q = row(in.q, b, t, key_head), *k = row(in.k, b, t, key_head), *g = in.g.data ? row(in.g, b, t, head) : nullptr;
      float held = 0, o = 0;
      for (int64_t c = 0; c < K; ++c) held += k[c] * (S[c * V + j] *= g ? expf(g[c]) : 1.0f);
      const float residual = *row(in.beta, b, t, head) * (row(in.v, b, t, head)[j] - held);
      for (int64_t c = 0; c < K; ++c) o += in.scale * q[c] * (S[c * V + j] += k[c] * residual);
      const_cast<float*>(row(out.o, b, t, head))[j] = o;
    }
    if (final_state)
      for (int64_t c = 0; c < K; ++c) final_state[state + c * V + j] = S[c * V + j];
  }
}

__global__ void write_one(float* place) { *place = 1; }

__global__ void spin(int64_t cycles) {
  const int64_t began = clock64();
  while (clock64() - began < cycles) {
  }
}

size_t workspace_bytes(const kdacheck_inputs* in, int) { return static_cast<size_t>(in->N * in->HV * in->K * in->V) * sizeof(float); }

int forward(const kdacheck_inputs* in, const kdacheck_outputs* out, void* workspace, size_t, char* why, size_t why_size) {
  if (in->memory != KDACHECK_DEVICE) {
    std::snprintf(why, why_size, "only memory of a device");
    return 1;
  }
  if (in->N * in->HV == 0) return 0;
  const dim3 grid(static_cast<unsigned>(in->N), static_cast<unsigned>(in->HV));
  recurrence<<<grid, 128, 0, static_cast<cudaStream_t>(in->stream)>>>(*in, *out, static_cast<float*>(workspace));
  const cudaError_t status = cudaGetLastError();
  if (status != cudaSuccess) std::snprintf(why, why_size, "%s", cudaGetErrorString(status));
  return status != cudaSuccess;
}

int writes_past_end(const kdacheck_inputs* in, const kdacheck_outputs* out, void* workspace, size_t bytes, char* why, size_t why_size) {
  const int status = forward(in, out, workspace, bytes, why, why_size);
  float* end = static_cast<float*>(out->o.data) + in->B * in->T * in->HV * in->V;
  write_one<<<1, 1, 0, static_cast<cudaStream_t>(in->stream)>>>(end);
  return status;
}

int changes_an_input(const kdacheck_inputs* in, const kdacheck_outputs* out, void* workspace, size_t bytes, char* why, size_t why_size) {
  const int status = forward(in, out, workspace, bytes, why, why_size);
  if (in->T > 0) write_one<<<1, 1, 0, static_cast<cudaStream_t>(in->stream)>>>(static_cast<float*>(in->beta.data));
  return status;
}

int illegal_access(const kdacheck_inputs* in, const kdacheck_outputs*, void*, size_t, char*, size_t) {
  write_one<<<1, 1, 0, static_cast<cudaStream_t>(in->stream)>>>(reinterpret_cast<float*>(16));
  return 0;
}

/// Does what it should unless T is odd.
int illegal_now_and_then(const kdacheck_inputs* in, const kdacheck_outputs* out, void* workspace, size_t bytes, char* why,
                         size_t why_size) {
  return in->T % 2 ? illegal_access(in, out, workspace, bytes, why, why_size) : forward(in, out, workspace, bytes, why, why_size);
}

// Half a minute on a GPU of 2 GHz: longer than the test waits, and it ends by itself.
int spins(const kdacheck_inputs* in, const kdacheck_outputs* out, void* workspace, size_t bytes, char* why, size_t why_size) {
  spin<<<1, 1, 0, static_cast<cudaStream_t>(in->stream)>>>(int64_t{60} * 1000 * 1000 * 1000);
  return forward(in, out, workspace, bytes, why, why_size);
}

constexpr kdacheck_kernel kernel(const char* name, kdacheck_forward_fn function) {
  return {.name = name,
          .summary = "",
          .contract = "memory=device decode=1..4 order=recurrence chunk=1 gates=log_decay,absent beta_max=2 strided=yes validates=no",
          .workspace_bytes = workspace_bytes,
          .forward = function,
          .backward = nullptr,
          .decode = function};
}

} // namespace

extern "C" const kdacheck_library* kdacheck_plugin(uint32_t version) {
  static const kdacheck_kernel kernels[] = {kernel("cuda.recurrence", forward),
                                            kernel("cuda.writes_past_end", writes_past_end),
                                            kernel("cuda.changes_an_input", changes_an_input),
                                            kernel("cuda.illegal_access", illegal_access),
                                            kernel("cuda.illegal_now_and_then", illegal_now_and_then),
                                            kernel("cuda.spins", spins)};
  static const kdacheck_library library = {KDACHECK_PLUGIN_VERSION, sizeof kernels / sizeof *kernels, kernels};
  return version == KDACHECK_PLUGIN_VERSION ? &library : nullptr;
}
