#pragma once
// All passes of KDA's backward pass on an emulated multiprocessor, in the order and the memory of backward_launch.cuh.

#include "../backward/backward_gradients.cuh"
#include "../backward/backward_parameters.cuh"
#include "../backward/backward_sweeps.cuh"
#include "../host/backward_workspace.hpp"

#include <algorithm>
#include <vector>

namespace kdacheck::cuda::testing {

/// Both sweeps over chunks kept in memory.
template <int K, bool half_precision> void emulate_kept_sweeps(const SweepArguments& states, const SweepArguments& adjoint) {
  const ForwardArguments& call = states.call;
  const std::int64_t slots = call.cu_seqlens != nullptr ? call.T / 16 + call.N : call.N * ((call.T + 15) / 16);
  std::vector<unsigned char> data(static_cast<std::size_t>(slots * call.HV) * kept_stage_bytes(K), 0xff);
  StageArguments stages{.call = call, .data = data.data(), .slots = slots, .warps = 3, .blocks = 2};
  const int bench = WorkbenchLayout<K, 1, Sweep::stored>::bytes(call.gate_format == Stored::fp32 ? 4 : 2);
  for (unsigned block = 0; block < 2; ++block)
    simt::run_cluster(block, 1, 96, static_cast<std::size_t>(3 * bench), [&] { stages_block<K, half_precision>(stages); });
  KeptSweepArguments kept{.states = states, .adjoint = adjoint, .data = data.data(), .slots = slots};
  kept.warps = call.V % 32 == 0 ? 2 : 1, kept.slices = call.V / 16 / kept.warps, kept.ring = 3;
  for (unsigned block = 0; block < static_cast<unsigned>(2 * call.N * call.HV * kept.slices); ++block)
    simt::run_cluster(block, 1, static_cast<unsigned>(32 * kept.warps),
                      static_cast<std::size_t>(kept_shared_bytes<K>(kept.ring, kept.warps)),
                      [&] { kept_sweeps_block<K, half_precision>(kept); });
}

/// One round of launches, block by block.
template <int K, int pieces, bool half_precision, bool narrow>
void emulate_round(const BackwardArguments& part, const BackwardWorkspace& where, unsigned sharing, int group_heads, int group_first) {
  const ForwardArguments& args = part.call;
  const int consumers = args.consumer_warps;
  const auto at = [&](std::size_t offset) { return static_cast<void*>(part.workspace + offset); };

  SweepArguments sweep;
  sweep.call = args;
  sweep.rows_total = part.B * args.T;
  sweep.rows = static_cast<std::uint16_t*>(at(where.R)), sweep.states = static_cast<std::uint32_t*>(at(where.S));
  const SweepArguments states = sweep;
  sweep.rows = static_cast<std::uint16_t*>(at(where.M)), sweep.states = static_cast<std::uint32_t*>(at(where.dS));
  sweep.d_o = part.d_o, sweep.dv = part.dv, sweep.dv_format = part.dv_format;
  sweep.d_final_state = part.d_final_state, sweep.d_initial_state = part.d_initial_state;
  if (sharing == 0) {
    if constexpr (pieces == 1 && !narrow) emulate_kept_sweeps<K, half_precision>(states, sweep);
  } else {
    const auto threads = static_cast<unsigned>(32 * (consumers + args.producer_warps));
    const auto shared_bytes = [&]<Sweep which> {
      return static_cast<std::size_t>(
          chunk_shared_bytes<K, pieces, which>(4, 2, consumers, args.gate_format == Stored::fp32 ? 4 : 2, args.staged));
    };
    for (unsigned block = 0; block < static_cast<unsigned>(args.N * args.HV * args.slices); block += sharing) {
      simt::run_cluster(block, sharing, threads, shared_bytes.template operator()<Sweep::states>(),
                        [&] { states_block<K, pieces, half_precision, narrow>(states); });
      simt::run_cluster(block, sharing, threads, shared_bytes.template operator()<Sweep::adjoint>(),
                        [&] { adjoint_block<K, pieces, half_precision, narrow>(sweep); });
    }
  }

  GradientArguments last;
  last.call = args;
  last.rows_total = part.B * args.T;
  last.d_o = sweep.d_o, last.d_final_state = sweep.d_final_state;
  last.dq = part.dq, last.dk = part.dk, last.dg = part.dg, last.dbeta = part.dbeta;
  last.dq_format = part.dq_format, last.dk_format = part.dk_format, last.dg_format = part.dg_format;
  last.dbeta_format = part.dbeta_format;
  last.group_heads = group_heads, last.group_first = group_first;
  last.R = static_cast<std::uint16_t*>(at(where.R)), last.M = static_cast<std::uint16_t*>(at(where.M));
  last.S = static_cast<std::uint32_t*>(at(where.S)), last.dS = static_cast<std::uint32_t*>(at(where.dS));
  last.group_q = static_cast<float*>(at(where.group_q)), last.group_k = static_cast<float*>(at(where.group_k));
  const bool sums_wanted = args.A_log != nullptr && (part.d_A_log != nullptr || part.d_dt_bias != nullptr);
  if (sums_wanted)
    last.partial_bias = static_cast<float*>(at(where.partial_bias)), last.partial_A = static_cast<float*>(at(where.partial_A));
  last.segment_slots = where.segment_slots;
  const GradientLayout<K, pieces, half_precision> layout(args.V);
  for (unsigned block = 0; block < where.segment_slots * args.H; ++block)
    simt::run_cluster(block, 1, 2 * K, static_cast<std::size_t>(layout.bytes), [&] {
      if (narrow || code_for(args) == GateCode::any)
        gradients_block<GateCode::any, K, pieces, half_precision, narrow>(last);
      else if (code_for(args) == GateCode::bounded)
        gradients_block<GateCode::bounded, K, pieces, half_precision>(last);
      else
        gradients_block<GateCode::given, K, pieces, half_precision>(last);
    });
  if (!sums_wanted) return;
  const ParameterArguments sums{.partial_bias = last.partial_bias,
                                .partial_A = last.partial_A,
                                .d_dt_bias = part.d_dt_bias,
                                .d_A_log = part.d_A_log,
                                .segment_slots = where.segment_slots,
                                .HV = args.HV,
                                .K = args.K};
  constexpr unsigned width = K > 128 ? 1024 : (K + 1 + 31) / 32 * 32 * parameter_groups;
  for (unsigned head = 0; head < static_cast<unsigned>(args.HV); ++head)
    simt::run_cluster(head, 1, width, 8 * parameter_groups * (K + 1), [&] { parameters_block(sums, width); });
}

/// All passes, block by block, in a workspace of their own. `sharing`: blocks of a cluster, that many slices; 0: the sweeps take chunks
/// kept in memory. Returns the number of rounds.
template <int K, int pieces, bool half_precision, bool narrow = false> int emulate_backward(BackwardArguments all, unsigned sharing) {
  ForwardArguments& args = all.call;
  const int blocks = std::max(static_cast<int>(sharing), 1);
  args.slices = args.sharing = blocks, args.consumer_warps = args.V / 16 / blocks, args.producer_warps = 2, args.stages = 4;
  args.staged = sharing > 2;
  const BackwardWorkspace where = backward_workspace(args, all.B, pieces, args.cu_seqlens != nullptr);
  std::vector<unsigned char> workspace(where.bytes + 256, 0xff);
  all.workspace = workspace.data();
  const int group = args.HV / args.H;
  int rounds = 0;
  for (int first = 0; first < args.HV; first += where.heads, ++rounds)
    emulate_round<K, pieces, half_precision, narrow>(heads_of(all, first, std::min(where.heads, args.HV - first)), where, sharing, group,
                                                     first % group);
  return rounds;
}

} // namespace kdacheck::cuda::testing
