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
// heads 1024 H/HV more. One token: no states at all. Where all this is more than 1.5 times a call's tensors (grouped heads, 256 channels),
// the passes are run for some of the heads, then for others in the same memory: whole groups, or value heads of the only group.

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
  int heads = 1;                  ///< value heads of a round
};

/// Bytes of a stage that is kept (chunk_layout.cuh), K channels in one bf16 term each.
constexpr std::size_t kept_stage_bytes(std::size_t K) { return 3 * 16 * K * 2 + 3 * 16 * 16 * 2 + 4 * K + 128; }

/// Bytes of a call's inputs, outputs and gradients, all of 16 bits; states and parameters not counted.
inline std::size_t tensor_bytes(const ForwardArguments& args, std::size_t rows) {
  const auto K = static_cast<std::size_t>(args.K), V = static_cast<std::size_t>(args.V), gates = args.gate == Gate::absent ? 0 : 2 * K;
  return 2 * rows * (static_cast<std::size_t>(args.H) * 4 * K + static_cast<std::size_t>(args.HV) * (gates + 4 * V + 2));
}

/// Bytes that a call's workspace should not exceed.
inline std::size_t most_workspace(const ForwardArguments& args, std::size_t rows) { return tensor_bytes(args, rows) / 2 * 3; }

/// For rounds of `heads` value heads.
inline BackwardWorkspace round_workspace(const ForwardArguments& args, std::int64_t B, int pieces, bool packed, int of_heads) {
  BackwardWorkspace w;
  w.heads = of_heads;
  const auto rows = static_cast<std::size_t>(B * args.T), heads = static_cast<std::size_t>(of_heads);
  const auto groups =
      (heads * static_cast<std::size_t>(args.H) + static_cast<std::size_t>(args.HV) - 1) / static_cast<std::size_t>(args.HV);
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
  const std::size_t shared = args.HV > args.H ? rows * groups * K * 4 : 0;
  w.group_q = take(shared);
  w.group_k = take(shared);
  const auto slots = args.A_log != nullptr ? static_cast<std::size_t>(w.segment_slots) : 0;
  w.partial_bias = take(slots * heads * K * 4);
  w.partial_A = take(slots * heads * 4);
  const std::int64_t chunks = packed ? args.T / 16 + args.N : args.N * ((args.T + 15) / 16);
  const std::size_t kept = static_cast<std::size_t>(chunks) * heads * kept_stage_bytes(K);
  if (pieces == 1 && has_own_kernel(args.K) && w.bytes + kept <= most_workspace(args, rows) && chunks * of_heads < std::int64_t{1} << 31) {
    w.stage_slots = chunks;
    w.stages = take(kept);
  }
  return w;
}

/// `pieces`: bf16 terms of R and M. `packed`: sequences given by cu_seqlens. As few rounds as the memory allows.
inline BackwardWorkspace backward_workspace(const ForwardArguments& args, std::int64_t B, int pieces, bool packed) {
  const auto rows = static_cast<std::size_t>(B * args.T);
  const int group = args.HV / args.H, step = args.H > 1 ? group : 1, parts = args.HV / step; // heads are dealt out in parts
  for (int rounds = 1;; ++rounds) {
    const int of_parts = (parts + rounds - 1) / rounds;
    const BackwardWorkspace w = round_workspace(args, B, pieces, packed, of_parts * step);
    if (w.bytes <= most_workspace(args, rows) || of_parts == 1) return w;
  }
}

/// The same tensor from that head on.
inline View from_head(View view, std::int64_t head, Stored format) {
  if (view.data == nullptr) return view;
  view.data = static_cast<unsigned char*>(view.data) + head * view.head * (format == Stored::fp32 ? 4 : 2);
  return view;
}

/// A call's value heads [first, first + count), a round's.
inline BackwardArguments heads_of(const BackwardArguments& args, int first, int count) {
  BackwardArguments part = args;
  ForwardArguments& call = part.call;
  const int group = call.HV / call.H, first_q = first / group;
  const std::int64_t state = std::int64_t{first} * call.K * call.V;
  const auto shift = [](auto*& pointer, std::int64_t by) {
    if (pointer != nullptr) pointer += by;
  };
  call.q = from_head(call.q, first_q, call.qkv_format), call.k = from_head(call.k, first_q, call.qkv_format);
  call.v = from_head(call.v, first, call.qkv_format), call.g = from_head(call.g, first, call.gate_format);
  call.beta = from_head(call.beta, first, call.beta_format);
  part.d_o = from_head(part.d_o, first, call.output_format);
  part.dq = from_head(part.dq, first_q, part.dq_format), part.dk = from_head(part.dk, first_q, part.dk_format);
  part.dv = from_head(part.dv, first, part.dv_format), part.dg = from_head(part.dg, first, part.dg_format);
  part.dbeta = from_head(part.dbeta, first, part.dbeta_format);
  shift(call.A_log, first), shift(part.d_A_log, first);
  shift(call.dt_bias, std::int64_t{first} * call.K), shift(part.d_dt_bias, std::int64_t{first} * call.K);
  shift(call.initial_state, state), shift(part.d_final_state, state), shift(part.d_initial_state, state);
  call.H = (count + group - 1) / group;
  call.HV = count;
  return part;
}

} // namespace kdacheck::cuda
