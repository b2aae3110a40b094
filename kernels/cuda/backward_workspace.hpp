#pragma once
// What the backward pass keeps between its passes, and where.
//
//   R, M   [pieces][B T][HV][V] bf16   r_t = v_t - k_t^T Diag(alpha_t) S_{t-1}, and m_t = k_t^T dS_t: what the update writes is
//                                      u = beta r, and dv = beta m, dbeta = m . r
//   S, dS  between segments of 64 tokens, each [2][K/16][V/16][32][4] fp32, in the order in which lanes of the last pass
//          take them as right operands. Sequence n's first slot is its first token / 64: a sequence
//          of L tokens has (L-1)/64 inner boundaries, so that no two share a slot. The states at both ends are the caller's tensors.
//   sums over value heads of dq and dk [B T][H][K] fp32, only where heads are grouped
//   sums over a segment's tokens of d dt_bias and d A_log, fp32
//
//   stages [HV][slots] of what both sweeps take of a chunk (StageLayout of Sweep::stored); tier `fast`, where the whole is then still
//          at most 1.5 times a call's tensors; elsewhere each sweep works its chunks out for itself
//
// Bytes per token and value head at K = V = 128: R and M 512 (fast) or 1024 (accurate), S and dS 2048, sums 8.1, stages 904; grouped
// heads 1024 H/HV more. One token: no states at all.

#include "arguments.hpp"

#include <cstddef>

namespace kdacheck::cuda {

inline constexpr int segment_tokens = 64;

/// Byte offsets, each a multiple of 256; `bytes` is the whole.
struct BackwardWorkspace {
  std::size_t R = 0, M = 0, S = 0, dS = 0, group_q = 0, group_k = 0, partial_bias = 0, partial_A = 0, bytes = 0;
  std::size_t stages = 0;
  std::int64_t segment_slots = 0; ///< of the last pass's grid: some may hold no token
  std::int64_t stage_slots = 0;   ///< of a head: some may hold no chunk; 0: stages are not kept
};

/// Bytes of a stage that is kept (chunk_layout.cuh), K channels in one bf16 term each.
constexpr std::size_t kept_stage_bytes(std::size_t K) { return 3 * 16 * K * 2 + 3 * 16 * 16 * 2 + 4 * K + 128; }

/// Bytes of a call's inputs, outputs and gradients, all of 16 bits; states and parameters not counted.
inline std::size_t tensor_bytes(const ForwardArguments& args, std::size_t rows) {
  const auto K = static_cast<std::size_t>(args.K), V = static_cast<std::size_t>(args.V), gates = args.gate == Gate::absent ? 0 : 2 * K;
  return 2 * rows * (static_cast<std::size_t>(args.H) * 4 * K + static_cast<std::size_t>(args.HV) * (gates + 4 * V + 2));
}

/// `pieces`: bf16 terms of R and M. `packed`: sequences given by cu_seqlens.
inline BackwardWorkspace backward_workspace(const ForwardArguments& args, std::int64_t B, int pieces, bool packed) {
  BackwardWorkspace w;
  const auto rows = static_cast<std::size_t>(B * args.T), heads = static_cast<std::size_t>(args.HV);
  const auto K = static_cast<std::size_t>(args.K), V = static_cast<std::size_t>(args.V);
  const auto take = [&](std::size_t bytes) {
    const std::size_t at = w.bytes;
    w.bytes += (bytes + 255) / 256 * 256;
    return at;
  };
  w.segment_slots = packed ? args.T / segment_tokens + args.N : args.N * ((args.T + segment_tokens - 1) / segment_tokens);
  w.R = take(rows * heads * V * static_cast<std::size_t>(pieces) * 2);
  w.M = take(rows * heads * V * static_cast<std::size_t>(pieces) * 2);
  w.S = take(rows / segment_tokens * heads * K * V * 4);
  w.dS = take(rows / segment_tokens * heads * K * V * 4);
  const std::size_t shared = args.HV > args.H ? rows * static_cast<std::size_t>(args.H) * K * 4 : 0;
  w.group_q = take(shared);
  w.group_k = take(shared);
  const auto slots = args.A_log != nullptr ? static_cast<std::size_t>(w.segment_slots) : 0;
  w.partial_bias = take(slots * heads * K * 4);
  w.partial_A = take(slots * heads * 4);
  const std::int64_t chunks = packed ? args.T / 16 + args.N : args.N * ((args.T + 15) / 16);
  const std::size_t kept = static_cast<std::size_t>(chunks) * heads * kept_stage_bytes(K);
  if (pieces == 1 && 2 * (w.bytes + kept) <= 3 * tensor_bytes(args, rows) && chunks * args.HV < std::int64_t{1} << 31) {
    w.stage_slots = chunks;
    w.stages = take(kept);
  }
  return w;
}

} // namespace kdacheck::cuda
