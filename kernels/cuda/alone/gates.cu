// The gate alone (gates.cuh).
//
// Predicted, not measured: limited by memory; bf16 g, both outputs in fp32, 10 bytes a channel and token: 0.27 ms for T 8192, 96 heads of
// 128 at 3.7 TB/s.

#include "../host/launch.hpp"
#include "gates.cuh"

namespace kdacheck::cuda {
namespace {

__global__ void __launch_bounds__(256) gates(const __grid_constant__ GateArguments args) { gates_block(args); }

} // namespace

cudaError_t launch_gates(const GateArguments& args, cudaStream_t stream) {
  const std::int64_t blocks = args.slots * args.call.HV;
  if (blocks == 0) return cudaSuccess;
  gates<<<static_cast<unsigned>(blocks), static_cast<unsigned>((args.call.K + 31) / 32 * 32), 0, stream>>>(args);
  return cudaGetLastError();
}

} // namespace kdacheck::cuda
