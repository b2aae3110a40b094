#pragma once
// Launches of the backward pass. Tier `fast`: bf16 operands, everything else fp32; states between segments in fp32.
// Tier `accurate`: every operand the sum of two bf16 terms.
//
// Four launches, no atomics, every sum in a fixed order:
//   stages     parallel over chunks of 16 tokens: what both sweeps take of a chunk, into the workspace    (backward_stages.cuh)
//   sweeps     side by side: from first to last, R for every token, S every 64 tokens                     (backward_states.cuh);
//              from last to first, M and dv for every token, dS every 64 tokens, dh0                      (backward_adjoint.cuh)
//   gradients  parallel over segments of 64 tokens: dq dk dg dbeta, through l2norm, gate, sigmoid         (backward_gradients.cuh)
//   parameters sums over segments: d A_log, d dt_bias                                                     (backward_parameters.cuh)
// Where chunks would make the workspace exceed 1.5 times the tensors (tier `accurate`, short packed members, keys of neither 64 nor 128
// channels) the sweeps are two launches that each work the chunks out for themselves, with the producers of the forward pass. Where it
// would exceed that even so (grouped heads), all four are launched for some of the heads, then for others in the same memory.
//
// Bytes per token and head, K = V = 128, bf16, fast: stages reads 770, writes 904; sweeps read 616 and 872 of those and v, dO 512,
// write R M dv 768 and S dS 2048; gradients reads q k g do 1024, R M 512, S dS 2048, writes dq dk dg 768 and 8 of sums: 10.85 KB in all.
// The keys and the gate are read twice more by the last pass, mostly from L2.
// Shared memory of the last pass at V = 128: 114,432 bytes (fast, two blocks a multiprocessor), 202,496 (accurate, one); stages 230,400;
// sweeps 66,176 (three blocks). Registers, bytes spilled to the stack (K 128, bf16 in, bounded gate): fast stages 168, 36; sweeps 168, 8;
// gradients 128, 8.
//
// Story (H100, K = V = 128, T 8192, 96 heads, graph replay, ms: backward alone, fast / accurate):
// 1. As above. Predicted: states 1.0, adjoint 1.1, gradients 2.1. Measured 9.61 / 14.98: states 1.0, adjoint 1.7, gradients 7.0. The
//    last pass waits: 23 % for numbers loaded one at a time in the sub-block's loop, 25 % for instructions (17,750 of them, 284 KB).
// 2. Rows loaded ahead; states a step ahead. The forms with logarithms out of line: predicted fewer instructions, but the calls spill.
//    Measured 9.13.
// 3. Kernels without those forms where the gate does not need them, one loop for dq and dk. Predicted 7. Measured 8.66 / 13.75, the
//    last pass 6.1: 13,980 instructions, still 34 % of its time without one to issue; 0.25 issued a cycle and scheduler.
// 4. A cotangent that is not finite is kept from later tokens: 9.60 with every number looked at, 9.25 / 13.95 with a word test first
//    (adjoint 2.1). States between segments in fp32, not in two bf16 terms: what they give dg was off by 1.2 of its bound.
// 5. The last pass made small: q, k, g staged by asynchronous copies in the places of qd, kd, kr and replaced word by word, loops
//    rolled, one kernel for each kind of gate, states stored as fp32 words: 13,939 instructions become 8,349, and spills of 1096 bytes
//    become 56. Predicted: it fits the instruction cache, 3 for the pass. Measured 5.92 / 11.03 (forward + backward 6.98 / 13.01).
// 6. Chunks worked out once, by a kernel without a serial chain, and kept as images of shared memory; sweeps without producers, both in
//    one launch, since neither needs the other. Predicted: stages 0.6, sweeps 1.5 (bandwidth), 4.6 in all. Measured 5.30 fast: 0.60,
//    1.95, 2.76. Blocks of the two sweeps took turns, so that a multiprocessor got three of one kind; and S, dS asked for ahead into
//    L2 cost 0.2.
// 7. One kind of block after the other: predicted 1.6, measured 1.73. Rows past the end not addressed anew: stages 0.57. In the last
//    pass two tokens a warp for dq, dk, states two steps ahead, the gate a step ahead, sums of squares in registers: predicted 2.0,
//    measured 3.30: 9,032 instructions no longer fit the instruction cache (25 % of the waiting; 2 % at 8,424).
// 8. One body for dq and dk, loops that begin early instead of code before them: 8,032 instructions, 8 bytes spilled instead of 220.
//    Predicted 2.1 for the pass. Measured 4.70 for all. The sweeps read 1.99 GB where 1.54 would do: a stage has left L2 before the other
//    block that takes it comes.
// 9. States between segments, written once and read once, marked so that L2 keeps other lines. Predicted 1.6 for the sweeps. Measured:
//    reports/cuda/evidence.md; what limits each pass: reports/cuda/backward.md.
// 10. Any K (kernels with room for 128 and, tier `fast`, 256 channels; sweeps with room for 256 at 255 registers, nothing spilled; the last
//    pass at 512 threads of 128 registers, 16 bytes spilled), heads in rounds. Predicted: nothing at 64 and 128 channels and one value head
//    a key head. Measured on an H200 4.09 and 8.62 ms where 4.08 and 8.63 stood.
// 11. Decays below 2^-126 are kept, and slopes of gates that are as good as shut. In the last pass only where the gate can give such
//    decays (code_for), so that the code for the bounded gate stays small. Instructions, bf16, K 128: bounded 8,027 in place of 7,995,
//    given 7,596 for 7,410, any 14,543 for 16,023; stages 7,955 for 8,908, sweeps 4,646 as before; no spills in the last pass. Predicted:
//    nothing measurable, stages perhaps 0.55 for 0.57; not measured.

#include "../chunk/chunk_launch.cuh"
#include "../host/backward_workspace.hpp"
#include "backward_gradients.cuh"
#include "backward_parameters.cuh"
#include "backward_sweeps.cuh"

namespace kdacheck::cuda {

template <int K, int pieces, bool half_precision, bool narrow = false>
__global__ void __launch_bounds__(32 * warps_of(K), 1) backward_states(const __grid_constant__ SweepArguments args) {
  states_block<K, pieces, half_precision, narrow>(args);
}

template <int K, int pieces, bool half_precision, bool narrow = false>
__global__ void __launch_bounds__(32 * warps_of(K), 1) backward_adjoint(const __grid_constant__ SweepArguments args) {
  adjoint_block<K, pieces, half_precision, narrow>(args);
}

template <int K, bool half_precision>
__global__ void __launch_bounds__(32 * most_stage_warps, 1) backward_stages(const __grid_constant__ StageArguments args) {
  stages_block<K, half_precision>(args);
}

template <int K, bool half_precision>
__global__ void __launch_bounds__(32 * most_kept_warps, 3) backward_sweeps(const __grid_constant__ KeptSweepArguments args) {
  kept_sweeps_block<K, half_precision>(args);
}

/// What this machine offers.
struct Machine {
  int multiprocessors = 0, shared_limit = 0;
};
inline cudaError_t ask(Machine& machine) {
  int device = 0;
  if (const cudaError_t error = cudaGetDevice(&device); error != cudaSuccess) return error;
  if (const cudaError_t error = cudaDeviceGetAttribute(&machine.multiprocessors, cudaDevAttrMultiProcessorCount, device);
      error != cudaSuccess)
    return error;
  return cudaDeviceGetAttribute(&machine.shared_limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
}

/// Allows a kernel all shared memory: the device's limit, not what a call takes, since calls of several threads set it for one another.
template <class Kernel> cudaError_t allow_shared(Kernel kernel, const Machine& machine) {
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, machine.shared_limit);
}

/// Cuts both sweeps into blocks, as many as fill the machine; the number of them.
inline unsigned cut_sweeps(KeptSweepArguments& kept, int ring, const Machine& machine) {
  const ForwardArguments& call = kept.states.call;
  const int groups = call.V / 16;
  const std::int64_t units = call.N * call.HV;
  kept.warps = most_kept_warps;
  while (groups % kept.warps != 0 || (kept.warps > 1 && 2 * units * (groups / kept.warps) < machine.multiprocessors * 9 / 10))
    kept.warps /= 2;
  kept.slices = groups / kept.warps;
  kept.ring = ring;
  return static_cast<unsigned>(2 * units * kept.slices);
}

/// Chunks to the workspace, then both sweeps in one launch.
template <int K, bool half_precision>
cudaError_t launch_kept_sweeps(const SweepArguments& states, const SweepArguments& adjoint, unsigned char* data, std::int64_t slots,
                               const Machine& machine, cudaStream_t stream) {
  const ForwardArguments& call = states.call;
  const int bench = WorkbenchLayout<K, 1, Sweep::stored>::bytes(call.gate_format == Stored::fp32 ? 4 : 2);
  StageArguments stages{.call = call, .data = data, .slots = slots};
  stages.warps = std::min(most_stage_warps, machine.shared_limit / bench);
  const std::int64_t chunks = slots * call.HV, blocks = (chunks + stages.warps - 1) / stages.warps;
  if (blocks == 0) return cudaSuccess;
  stages.blocks = static_cast<int>(std::min<std::int64_t>(blocks, machine.multiprocessors));
  auto* prepare = backward_stages<K, half_precision>;
  if (const cudaError_t error = allow_shared(prepare, machine); error != cudaSuccess) return error;
  prepare<<<static_cast<unsigned>(stages.blocks), static_cast<unsigned>(32 * stages.warps), static_cast<unsigned>(stages.warps * bench),
            stream>>>(stages);
  if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess) return error;
  KeptSweepArguments kept{.states = states, .adjoint = adjoint, .data = data, .slots = slots};
  const unsigned sweep_blocks = cut_sweeps(kept, 4, machine);
  auto* kernel = backward_sweeps<K, half_precision>;
  if (const cudaError_t error = allow_shared(kernel, machine); error != cudaSuccess) return error;
  kernel<<<sweep_blocks, static_cast<unsigned>(32 * kept.warps), static_cast<unsigned>(kept_shared_bytes<K>(kept.ring, kept.warps)),
           stream>>>(kept);
  return cudaGetLastError();
}

template <GateCode code, int K, int pieces, bool half_precision, bool narrow = false>
__global__ void __launch_bounds__(2 * K, pieces == 1 && K <= 128 ? 2 : 1)
    backward_gradients(const __grid_constant__ GradientArguments args) {
  gradients_block<code, K, pieces, half_precision, narrow>(args);
}

constexpr __device__ __host__ unsigned parameter_threads(int K) {
  return K > 128 ? 1024 : static_cast<unsigned>((K + 1 + 31) / 32 * 32 * parameter_groups);
}

template <int K>
__global__ void __launch_bounds__(parameter_threads(K), 1) backward_parameters(const __grid_constant__ ParameterArguments args) {
  parameters_block(args, parameter_threads(K));
}

/// Sums of what the last pass left for each segment. K: room for channels.
template <int K> cudaError_t launch_parameters(const GradientArguments& last, const BackwardArguments& args, cudaStream_t stream) {
  const ForwardArguments& call = last.call;
  const ParameterArguments parameters{.partial_bias = last.partial_bias,
                                      .partial_A = last.partial_A,
                                      .d_dt_bias = args.d_dt_bias,
                                      .d_A_log = args.d_A_log,
                                      .segment_slots = last.segment_slots,
                                      .HV = call.HV,
                                      .K = call.K};
  backward_parameters<K><<<static_cast<unsigned>(call.HV), parameter_threads(K), 8 * parameter_groups*(K + 1), stream>>>(parameters);
  return cudaGetLastError();
}

/// One round; `group_heads`, `group_first`: of GradientArguments.
template <int K, int pieces, bool half_precision, bool narrow>
cudaError_t launch_round(const BackwardArguments& args, const BackwardWorkspace& where, int group_heads, int group_first,
                         const Machine& machine, cudaStream_t stream) {
  const ForwardArguments& call = args.call;
  const auto at = [&](std::size_t offset) { return static_cast<void*>(args.workspace + offset); };
  SweepArguments sweep{.call = call,
                       .d_o = {},
                       .dv = {},
                       .dv_format = args.dv_format,
                       .rows = static_cast<std::uint16_t*>(at(where.R)),
                       .rows_total = args.B * call.T,
                       .states = static_cast<std::uint32_t*>(at(where.S))};
  const SweepArguments states = sweep;
  sweep.d_o = args.d_o, sweep.dv = args.dv;
  sweep.d_final_state = args.d_final_state, sweep.d_initial_state = args.d_initial_state;
  sweep.rows = static_cast<std::uint16_t*>(at(where.M)), sweep.states = static_cast<std::uint32_t*>(at(where.dS));
  bool kept = false;
  if constexpr (pieces == 1 && !narrow)
    if (where.stage_slots > 0) {
      kept = true;
      if (const cudaError_t error =
              launch_kept_sweeps<K, half_precision>(states, sweep, args.workspace + where.stages, where.stage_slots, machine, stream);
          error != cudaSuccess)
        return error;
    }
  if (!kept) {
    if (const cudaError_t error = launch_cut<ChunkCut<K, pieces, Sweep::states>>(backward_states<K, pieces, half_precision, narrow>, states,
                                                                                 stream, ChunkShape{});
        error != cudaSuccess)
      return error;
    if (const cudaError_t error = launch_cut<ChunkCut<K, pieces, Sweep::adjoint>>(backward_adjoint<K, pieces, half_precision, narrow>,
                                                                                  sweep, stream, ChunkShape{});
        error != cudaSuccess)
      return error;
  }
  GradientArguments last{.call = call,
                         .d_o = args.d_o,
                         .dq = args.dq,
                         .dk = args.dk,
                         .dg = args.dg,
                         .dbeta = args.dbeta,
                         .dq_format = args.dq_format,
                         .dk_format = args.dk_format,
                         .dg_format = args.dg_format,
                         .dbeta_format = args.dbeta_format,
                         .d_final_state = args.d_final_state,
                         .R = static_cast<std::uint16_t*>(at(where.R)),
                         .M = static_cast<std::uint16_t*>(at(where.M)),
                         .rows_total = args.B * call.T,
                         .S = static_cast<std::uint32_t*>(at(where.S)),
                         .dS = static_cast<std::uint32_t*>(at(where.dS)),
                         .group_q = static_cast<float*>(at(where.group_q)),
                         .group_k = static_cast<float*>(at(where.group_k)),
                         .group_heads = group_heads,
                         .group_first = group_first,
                         .segment_slots = where.segment_slots};
  const bool sums = call.A_log != nullptr && (args.d_A_log != nullptr || args.d_dt_bias != nullptr);
  if (sums) last.partial_bias = static_cast<float*>(at(where.partial_bias)), last.partial_A = static_cast<float*>(at(where.partial_A));
  auto* kernel = backward_gradients<GateCode::any, K, pieces, half_precision, narrow>;
  if constexpr (!narrow) {
    if (code_for(call) == GateCode::bounded) kernel = backward_gradients<GateCode::bounded, K, pieces, half_precision>;
    if (code_for(call) == GateCode::given) kernel = backward_gradients<GateCode::given, K, pieces, half_precision>;
  }
  const int shared = GradientLayout<K, pieces, half_precision>(call.V).bytes;
  if (const cudaError_t error = allow_shared(kernel, machine); error != cudaSuccess) return error;
  if (where.segment_slots > 0)
    kernel<<<static_cast<unsigned>(where.segment_slots * call.H), 2 * K, static_cast<unsigned>(shared), stream>>>(last);
  if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess) return error;
  if (!sums) return cudaSuccess;
  return launch_parameters<K>(last, args, stream);
}

/// Instantiated in backward_TIER_K_FORMAT.cu, one to a file: each takes long to compile. `narrow`: keys of fewer than K channels, in
/// backward_narrow_TIER_FORMAT.cu; one kernel for every gate, and chunks are not kept.
template <int K, int pieces, bool half_precision, bool narrow>
cudaError_t launch_backward(const BackwardArguments& args, cudaStream_t stream) {
  const ForwardArguments& call = args.call;
  const BackwardWorkspace where = backward_workspace(call, args.B, pieces, call.cu_seqlens != nullptr);
  Machine machine;
  if (const cudaError_t error = ask(machine); error != cudaSuccess) return error;
  const int group = call.HV / call.H;
  for (int first = 0; first < call.HV; first += where.heads) {
    const BackwardArguments part = heads_of(args, first, std::min(where.heads, call.HV - first));
    if (const cudaError_t error = launch_round<K, pieces, half_precision, narrow>(part, where, group, first % group, machine, stream);
        error != cudaSuccess)
      return error;
  }
  return cudaSuccess;
}

} // namespace kdacheck::cuda
