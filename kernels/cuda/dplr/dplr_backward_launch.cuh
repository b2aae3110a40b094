#pragma once
// Launches of the general rule's backward pass, tier `fast`: bf16 operands, everything else fp32.
//
// Four launches, no atomics, every sum in a fixed order:
//   stages     parallel over chunks of 16 tokens: what the other passes take of a chunk, into the workspace         (dplr_sweeps.cuh)
//   sweeps     side by side: from first to last, W for every token, S every 64 tokens; from last to first, Y and dv for every token,
//              dS every 64 tokens, dh0
//   gradients  parallel over segments of 64 tokens: dq dk da db dg, through l2norm and gate                         (dplr_gradients.cuh)
//   parameters sums over segments: d A_log, d dt_bias (backward_parameters.cuh)
//
// Bytes per token and head, K = V = 128, bf16: stages reads 1280, writes 1192; sweeps read 864 and 1184 of those and v, dO 512, write
// W Y dv 768 and S dS 2048; gradients reads q k g a b v dO 1792, W Y 512, keys of stages 1064, S dS 2048 (S once a chunk, mostly from L2),
// writes dq dk dg da db 1280. Registers, bytes spilled (K 128, bf16): stages 222, 0; sweeps 168, 32; gradients 255, 64.
//
// Story (H200, K = V = 128, T 8192, 96 heads, graph replay, ms):
// 1. As above. What differs from KDA's: no scores between sub-blocks; S and dS walk over the chunks of a segment in accumulators, S anew
//    for each. Predicted: stages 0.8, sweeps 2, gradients 2. Measured 17.0: stages 0.59, sweeps 1.50, gradients 15: of 11 cycles between a
//    warp's instructions 5.4 waited for instructions (17,448 of them, 280 KB).
// 2. Rows staged by asynchronous copies instead of loads a channel at a time: predicted 10. Measured 17.5: instructions were what it
//    waited for.
// 3. Gate, slopes and stores in rolled loops over rows in shared memory; one piece of code for states as stored or given: 8,880
//    instructions. Predicted 4 for the pass, 6 in all. Measured 9.3, the pass 7.2: two warps a scheduler, 35 % of the cycles issue.
// 4. Rows written by pairs of channels, 2.09e9 instructions instead of 2.48e9: predicted 8.3. Measured 8.6.
// 5. Tried and dropped: the decays from all tokens to a row carried along instead of walked (8.8: more registers, more spills).
// What limits the last pass: latency. S and dS take 128 registers a thread, so that a multiprocessor has 8 warps; of 4.8 cycles
// between a warp's instructions 1.9 are fixed latencies, 1.0 waiting for memory, 0.9 for shared memory, 0.6 for instructions.

#include "../backward/backward_launch.cuh"
#include "dplr_gradients.cuh"

namespace kdacheck::cuda {

template <int K, bool half_precision>
__global__ void __launch_bounds__(256, 1) general_stages(const __grid_constant__ StageArguments args) {
  general_stages_block<K, half_precision>(args);
}

template <int K, bool half_precision>
__global__ void __launch_bounds__(32 * most_kept_warps, 3) general_sweeps(const __grid_constant__ KeptSweepArguments args) {
  general_sweeps_block<K, half_precision>(args);
}

template <int K, bool half_precision>
__global__ void __launch_bounds__(2 * K, K == 64 ? 2 : 1) general_gradients(const __grid_constant__ GeneralGradients args) {
  general_gradients_block<K, half_precision>(args);
}

/// Instantiated in dplr_backward_K_FORMAT.cu.
template <int K, bool half_precision> cudaError_t launch_general_backward(const BackwardArguments& args, cudaStream_t stream) {
  const ForwardArguments& call = args.call;
  const GeneralWorkspace where = general_workspace(call, args.B, call.cu_seqlens != nullptr);
  const auto at = [&](std::size_t offset) { return static_cast<void*>(args.workspace + offset); };
  Machine machine;
  if (const cudaError_t error = ask(machine); error != cudaSuccess) return error;

  StageArguments stages{.call = call, .data = args.workspace + where.stages, .slots = where.stage_slots};
  const int bench = GeneralBench<K>::bytes(call.gate_format == Stored::fp32 ? 4 : 2);
  stages.warps = std::min(8, machine.shared_limit / bench);
  const std::int64_t chunks = where.stage_slots * call.HV;
  stages.blocks = static_cast<int>(std::min<std::int64_t>((chunks + stages.warps - 1) / stages.warps, machine.multiprocessors));
  if (const cudaError_t error = allow_shared(general_stages<K, half_precision>, machine); error != cudaSuccess) return error;
  if (chunks > 0)
    general_stages<K, half_precision><<<static_cast<unsigned>(stages.blocks), static_cast<unsigned>(32 * stages.warps),
                                        static_cast<unsigned>(stages.warps * bench), stream>>>(stages);
  if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess) return error;

  SweepArguments sweep{.call = call,
                       .d_o = {},
                       .dv = {},
                       .dv_format = args.dv_format,
                       .rows = static_cast<std::uint16_t*>(at(where.W)),
                       .rows_total = args.B * call.T,
                       .states = static_cast<std::uint32_t*>(at(where.S))};
  KeptSweepArguments kept{.states = sweep, .adjoint = sweep, .data = stages.data, .slots = stages.slots};
  kept.adjoint.d_o = args.d_o, kept.adjoint.dv = args.dv;
  kept.adjoint.d_final_state = args.d_final_state, kept.adjoint.d_initial_state = args.d_initial_state;
  kept.adjoint.rows = static_cast<std::uint16_t*>(at(where.Y)), kept.adjoint.states = static_cast<std::uint32_t*>(at(where.dS));
  const unsigned blocks = cut_sweeps(kept, 3, machine);
  if (const cudaError_t error = allow_shared(general_sweeps<K, half_precision>, machine); error != cudaSuccess) return error;
  general_sweeps<K, half_precision>
      <<<blocks, static_cast<unsigned>(32 * kept.warps), static_cast<unsigned>(general_sweep_bytes<K>(kept.ring, kept.warps)), stream>>>(
          kept);
  if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess) return error;

  GeneralGradients gradient{.last = {.call = call,
                                     .d_o = args.d_o,
                                     .dq = args.dq,
                                     .dk = args.dk,
                                     .dg = args.dg,
                                     .dbeta = {},
                                     .dq_format = args.dq_format,
                                     .dk_format = args.dk_format,
                                     .dg_format = args.dg_format,
                                     .d_final_state = args.d_final_state,
                                     .R = static_cast<std::uint16_t*>(at(where.W)),
                                     .M = static_cast<std::uint16_t*>(at(where.Y)),
                                     .rows_total = args.B * call.T,
                                     .S = static_cast<std::uint32_t*>(at(where.S)),
                                     .dS = static_cast<std::uint32_t*>(at(where.dS)),
                                     .group_q = static_cast<float*>(at(where.group_q)),
                                     .group_k = static_cast<float*>(at(where.group_k)),
                                     .segment_slots = where.segment_slots},
                            .da = args.da,
                            .db = args.db,
                            .da_format = args.da_format,
                            .db_format = args.db_format,
                            .stages = stages.data,
                            .stage_slots = stages.slots};
  const bool sums = call.A_log != nullptr && (args.d_A_log != nullptr || args.d_dt_bias != nullptr);
  if (sums)
    gradient.last.partial_bias = static_cast<float*>(at(where.partial_bias)),
    gradient.last.partial_A = static_cast<float*>(at(where.partial_A));
  if (const cudaError_t error = allow_shared(general_gradients<K, half_precision>, machine); error != cudaSuccess) return error;
  if (where.segment_slots > 0)
    general_gradients<K, half_precision>
        <<<static_cast<unsigned>(where.segment_slots * call.H), 2 * K,
           static_cast<unsigned>(GeneralGradientLayout<K>(call.V, call.gate_format == Stored::fp32 ? 4 : 2).bytes), stream>>>(gradient);
  if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess || !sums) return error;
  return launch_parameters<K>(gradient.last, args, stream);
}

} // namespace kdacheck::cuda
