// Backward pass of the token recurrence in fp32: the GPU's own reference for gradients, for any K, V up to 256 and any option of
// the forward pass. No atomics; every sum has a fixed order.
//
//   states     parallel over sequences, heads and 64 value columns: the state every 64 tokens     (recurrence_adjoint.cuh)
//   adjoint    the same, from the last token to the first: dv, dh0, and parts of the rest
//   rows       parallel over tokens and heads: adds the parts up; gate, sigmoid, l2norm
//   parameters sums over rows: d A_log, d dt_bias
//
// Each token's state is worked out three times (K <= 64), 3.5 (K <= 128) or 4.5 times, so that memory holds only every 64th.
//
// Story: 1. as above; speed is not its purpose. T 8192, 32 heads, K = V = 128 on an H200: 195 ms, DPLR 268. Registers, bytes spilled of
// the way back for K up to 64, 128, 256: 128, 0; 128, 92; 128, 772.

#include "../host/launch.hpp"
#include "recurrence_adjoint.cuh"

namespace kdacheck::cuda {
namespace {

template <int parts>
__global__ void __launch_bounds__(8 * recurrence_block_columns) recurrence_states(const __grid_constant__ RecurrenceAdjoint args) {
  recurrence_states_block<parts>(args);
}
template <int parts>
__global__ void __launch_bounds__(8 * recurrence_block_columns) recurrence_adjoint(const __grid_constant__ RecurrenceAdjoint args) {
  recurrence_adjoint_block<parts>(args);
}
__global__ void __launch_bounds__(32 * slab_warps)
    recurrence_rows(const __grid_constant__ RecurrenceAdjoint args, float* partial_bias, float* partial_A) {
  recurrence_rows_block(args, partial_bias, partial_A);
}
__global__ void __launch_bounds__(288)
    recurrence_parameters(const __grid_constant__ RecurrenceAdjoint args, const float* partial_bias, const float* partial_A) {
  recurrence_parameters_block(args, partial_bias, partial_A);
}

template <int parts> cudaError_t launch(const RecurrenceAdjoint& args, cudaStream_t stream) {
  const ForwardArguments& call = args.back.call;
  const auto blocks = static_cast<unsigned>(call.N * call.HV * args.where.groups), threads = static_cast<unsigned>(32 * args.where.warps);
  if (call.T > recurrence_segment) recurrence_states<parts><<<blocks, threads, 0, stream>>>(args);
  const int shared = recurrence_shared_bytes<parts>(args.where.warps, call.dplr, call.K);
  // The most that any call takes: calls of several threads set it for one another.
  constexpr int most = recurrence_shared_bytes<parts>(16, true, 32 * parts);
  auto* kernel = recurrence_adjoint<parts>;
  if (const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most); error != cudaSuccess)
    return error;
  kernel<<<blocks, threads, static_cast<unsigned>(shared), stream>>>(args);
  return cudaGetLastError();
}

} // namespace

cudaError_t launch_recurrence_backward(const BackwardArguments& back, cudaStream_t stream) {
  const ForwardArguments& call = back.call;
  const RecurrenceAdjoint args{.back = back, .where = recurrence_workspace(call, back.B)};
  const cudaError_t error = args.where.parts == 2   ? launch<2>(args, stream)
                            : args.where.parts == 4 ? launch<4>(args, stream)
                                                    : launch<8>(args, stream);
  if (error != cudaSuccess) return error;
  const bool sums = call.A_log != nullptr && (back.d_A_log != nullptr || back.d_dt_bias != nullptr);
  auto* partial_bias = sums ? reinterpret_cast<float*>(back.workspace + args.where.partial_bias) : nullptr;
  auto* partial_A = sums ? reinterpret_cast<float*>(back.workspace + args.where.partial_A) : nullptr;
  if (args.where.slabs > 0)
    recurrence_rows<<<static_cast<unsigned>(args.where.slabs * call.HV), 32 * slab_warps,
                      static_cast<unsigned>(4 * slab_warps * (call.K + 1)), stream>>>(args, partial_bias, partial_A);
  if (const cudaError_t failed = cudaGetLastError(); failed != cudaSuccess || !sums) return failed;
  recurrence_parameters<<<static_cast<unsigned>(call.HV), 288, 0, stream>>>(args, partial_bias, partial_A);
  return cudaGetLastError();
}

} // namespace kdacheck::cuda
