#pragma once
// What both sweeps of the backward pass take of a chunk, worked out once: a warp a chunk, all chunks in parallel, into the
// workspace as the stages of shared memory that they become (StageLayout of Sweep::stored).

#include "../chunk/chunk_producer.cuh"
#include "backward_layout.cuh"

namespace kdacheck::cuda {

static_assert(kept_stage_bytes(64) == StageLayout<64, 1, Sweep::stored>::bytes);
static_assert(kept_stage_bytes(128) == StageLayout<128, 1, Sweep::stored>::bytes);

/// Slot of a sequence's first chunk among the stages of a head.
__device__ __forceinline__ std::int64_t stage_slot(const ForwardArguments& args, Span span, std::int64_t n) {
  return args.cu_seqlens == nullptr ? n * ((args.T + chunk_tokens - 1) / chunk_tokens) : span.first / chunk_tokens + n;
}

inline constexpr int most_stage_warps = 12;

/// A block of independent warps. The heads of a chunk are taken by neighbouring warps, so that rows are read whole.
template <int K, bool half_precision> __device__ __forceinline__ void stages_block(const StageArguments& stages) {
  using Bench = WorkbenchLayout<K, 1, Sweep::stored>;
  using Layout = StageLayout<K, 1, Sweep::stored>;
  const ForwardArguments& args = stages.call;
  const unsigned lane = thread_index() % 32, warps = static_cast<unsigned>(stages.warps), heads = static_cast<unsigned>(args.HV);
  const Address bench = shared_base() + thread_index() / 32 * Bench::bytes(args.gate_format == Stored::fp32 ? 4 : 2);
  const unsigned step = warps * static_cast<unsigned>(stages.blocks), all = static_cast<unsigned>(stages.slots) * heads;
  const auto fetch = [&](unsigned task) {
    if (task >= all) return;
    const ChunkPlace at = piece_of<chunk_tokens>(args, task / heads);
    const int head = static_cast<int>(task % heads);
    if (at.tokens > 0)
      fetch_rows<K, 1, Sweep::stored>(args, bench, at.span, static_cast<int>(at.number), head, head / (args.HV / args.H), lane);
  };
  unsigned task = block_index() * warps + thread_index() / 32;
  fetch(task);
  for (; task < all; task += step) {
    const int head = static_cast<int>(task % heads);
    const ChunkPlace at = piece_of<chunk_tokens>(args, task / heads);
    const auto begin_next = [&] { fetch(task + step); };
    if (at.tokens > 0) {
      const bool has_token = static_cast<int>(lane) < at.tokens;
      const std::uint32_t beta_bits =
          has_token ? load_bits(args.beta.data, row_of(args.beta, at.span.batch, at.first() + lane, head), args.beta_format) : 0;
      if (args.dt_bias != nullptr) {
        for (unsigned c = 2 * lane; c < K; c += 64) {
          const float* bias = args.dt_bias + static_cast<std::int64_t>(head) * K + c;
          store_shared(bench + Bench::biases + 4 * c, Pair{bias[0], bias[1]});
        }
      } else {
        for (unsigned c = 2 * lane; c < K; c += 64) store_shared(bench + Bench::biases + 4 * c, Pair{0, 0});
      }
      copy_async_wait<0>();
      sync_warp();
      normalise<K, 1, half_precision, Sweep::stored>(args, bench, lane);
      if (lane < 16)
        store_shared(bench + Bench::norms + 128 + 4 * lane,
                     has_token ? step_size(args.beta_form, number_of(beta_bits, args.beta_format)) : 0.0f);
      sync_warp();
      unsigned char* place =
          stages.data + (static_cast<std::int64_t>(head) * stages.slots + stage_slot(args, at.span, at.n) + at.number) * Layout::bytes;
      produce<K, 1, half_precision, Sweep::stored>(args, bench, place, gate_of(args, head), bench + Bench::biases, at.tokens, lane,
                                                   begin_next, [] {});
      sync_warp();
    } else {
      begin_next();
    }
  }
}

} // namespace kdacheck::cuda
