#pragma once
// What the recurrence's backward pass keeps between its passes, and where.
//
//   states    S every 64 tokens of a sequence, as the threads of the way back take it: [slots][HV][groups][4 parts][threads] fp32;
//             sequence n's first slot is its first token / 64, as in backward_workspace.hpp
//   inner     S every 8 tokens of the 64 that a block is at: [N HV groups][8][4 parts][threads]
//   partials  what a block's 64 value columns give the other gradients: [B T][HV][groups][3 K + 1] (q, k, g, beta) or
//             [5 K] (DPLR: q, k, g, a, b)
//   sums over 64 rows of d dt_bias and d A_log, fp32
//
// Bytes per token and value head at K = V = 128: states 1024, partials 3080 (DPLR 5120), sums 8; of a sequence and head 524,288.

#include "arguments.hpp"

#include <algorithm>
#include <cstddef>

namespace kdacheck::cuda {

inline constexpr int recurrence_segment = 64, recurrence_step = 8; ///< tokens between states that are kept
inline constexpr int recurrence_block_columns = 64;                ///< value columns of a block: 16 warps of 4
inline constexpr int recurrence_slab = 64;                         ///< rows of a block of the last pass

struct RecurrenceWorkspace {
  std::size_t states = 0, inner = 0, partials = 0, partial_bias = 0, partial_A = 0, bytes = 0; ///< offsets, multiples of 256
  int parts = 2, warps = 1, groups = 1, inner_slots = 1; ///< channels / 32, 2, 4 or 8; warps of a block; blocks of a state
  int width = 1;                                         ///< numbers of a row of partials
  std::int64_t slabs = 0;
};

/// Numbers of a row of partials.
constexpr int partial_width(bool dplr, int K) { return dplr ? 5 * K : 3 * K + 1; }

inline RecurrenceWorkspace recurrence_workspace(const ForwardArguments& args, std::int64_t B) {
  RecurrenceWorkspace w;
  w.parts = args.K <= 64 ? 2 : args.K <= 128 ? 4 : 8;
  w.groups = (args.V + recurrence_block_columns - 1) / recurrence_block_columns;
  w.warps = std::min(recurrence_block_columns, args.V + 3) / 4;
  w.width = partial_width(args.dplr, args.K);
  const auto rows = static_cast<std::size_t>(B * args.T), heads = static_cast<std::size_t>(args.HV);
  const auto blocks = heads * static_cast<std::size_t>(w.groups);
  const auto state = static_cast<std::size_t>(w.parts * 4 * 32 * w.warps) * 4; // of a block
  w.inner_slots =
      static_cast<int>(std::clamp<std::int64_t>((args.T + recurrence_step - 1) / recurrence_step, 1, recurrence_segment / recurrence_step));
  w.slabs = static_cast<std::int64_t>((rows + recurrence_slab - 1) / recurrence_slab);
  const auto take = [&](std::size_t bytes) {
    const std::size_t at = w.bytes;
    w.bytes += (bytes + 255) / 256 * 256;
    return at;
  };
  w.states = take(rows / recurrence_segment * blocks * state);
  w.inner = take(static_cast<std::size_t>(args.N) * blocks * static_cast<std::size_t>(w.inner_slots) * state);
  w.partials = take(rows * blocks * static_cast<std::size_t>(w.width) * 4);
  const auto slots = args.A_log != nullptr ? static_cast<std::size_t>(w.slabs) : 0;
  w.partial_bias = take(slots * heads * static_cast<std::size_t>(args.K) * 4);
  w.partial_A = take(slots * heads * 4);
  return w;
}

} // namespace kdacheck::cuda
