#pragma once
// What the backward pass of the general rule keeps between its passes, and where.
//
//   stages [HV][slots] of what both sweeps and the last pass take of a chunk (dplr_layout.cuh), and the norms of its q and k
//   W, Y   [B T][HV][V] bf16: w_t = -S_{t-1}^T b_t, y_t = -dS_t^T a_t, with dS_t the cotangent of S_t
//   S, dS  between segments of 64 tokens, as backward_workspace.hpp has them
//   sums over value heads of dq and dk [B T][H][K] fp32, only where heads are grouped; sums for d dt_bias and d A_log
//
// Bytes per token and value head at K = V = 128: stages 1192, W and Y 512, S and dS 2048, sums 8.1: 1.05 times inputs, outputs and
// gradients in bf16; grouped heads 1024 H/HV more.

#include "backward_workspace.hpp"

namespace kdacheck::cuda {

/// Bytes of a stage that is kept.
constexpr std::size_t kept_general_bytes(std::size_t K) { return 4 * 16 * K * 2 + 4 * 16 * 16 * 2 + 4 * K + 128; }

struct GeneralWorkspace {
  std::size_t stages = 0, W = 0, Y = 0, S = 0, dS = 0, group_q = 0, group_k = 0, partial_bias = 0, partial_A = 0, bytes = 0;
  std::int64_t stage_slots = 0;   ///< of a head: some may hold no chunk
  std::int64_t segment_slots = 0; ///< of the last pass's grid: some may hold no token
};

/// `packed`: sequences given by cu_seqlens.
inline GeneralWorkspace general_workspace(const ForwardArguments& args, std::int64_t B, bool packed) {
  GeneralWorkspace w;
  const auto rows = static_cast<std::size_t>(B * args.T), heads = static_cast<std::size_t>(args.HV);
  const auto K = static_cast<std::size_t>(args.K), V = static_cast<std::size_t>(args.V);
  const auto take = [&](std::size_t bytes) {
    const std::size_t at = w.bytes;
    w.bytes += (bytes + 255) / 256 * 256;
    return at;
  };
  w.stage_slots = packed ? args.T / 16 + args.N : args.N * ((args.T + 15) / 16);
  w.segment_slots = packed ? args.T / segment_tokens + args.N : args.N * ((args.T + segment_tokens - 1) / segment_tokens);
  w.stages = take(static_cast<std::size_t>(w.stage_slots) * heads * kept_general_bytes(K));
  w.W = take(rows * heads * V * 2);
  w.Y = take(rows * heads * V * 2);
  w.S = take(rows / segment_tokens * heads * K * V * 4);
  w.dS = take(rows / segment_tokens * heads * K * V * 4);
  const std::size_t shared = args.HV > args.H ? rows * static_cast<std::size_t>(args.H) * K * 4 : 0;
  w.group_q = take(shared);
  w.group_k = take(shared);
  const auto slots = args.A_log != nullptr ? static_cast<std::size_t>(w.segment_slots) : 0;
  w.partial_bias = take(slots * heads * K * 4);
  w.partial_A = take(slots * heads * 4);
  return w;
}

} // namespace kdacheck::cuda
