#pragma once
// The gate alone: logarithms of decays from what the caller stores, and their sums over each chunk of a sequence.
//
// A thread a channel, a block a chunk and head; eight tokens are asked for before the first is used. Bytes: each number of g read once,
// each of what is wanted written once. Arithmetic is that of the token recurrence (gate.cuh): no approximate instruction.

#include "../device/gate.cuh"
#include "../device/rows.cuh"

namespace kdacheck::cuda {

/// A chunk of a sequence.
struct GateChunk {
  Span span;
  std::int64_t first; ///< token of the sequence
  int tokens;         ///< 0: this slot of the grid holds none
};
__device__ __forceinline__ GateChunk gate_chunk(const GateArguments& gates, std::int64_t slot) {
  const ForwardArguments& args = gates.call;
  std::int64_t n = 0, number = 0;
  if (args.cu_seqlens == nullptr) {
    const std::int64_t each = (args.T + gates.chunk - 1) / gates.chunk;
    n = slot / each, number = slot % each;
  } else {
    // Sequence n owns the slots from first / chunk + n on: the last n that starts at or before this one.
    std::int64_t high = args.N - 1;
    while (n < high) {
      const std::int64_t middle = (n + high + 1) / 2;
      if (span_of(args, middle).first / gates.chunk + middle <= slot)
        n = middle;
      else
        high = middle - 1;
    }
    number = slot - span_of(args, n).first / gates.chunk - n;
  }
  const Span span = span_of(args, n);
  const std::int64_t first = number * gates.chunk, left = span.length - first;
  return {span, first, left < 0 ? 0 : left < gates.chunk ? static_cast<int>(left) : gates.chunk};
}

/// As many threads as channels, at least.
__device__ __forceinline__ void gates_block(const GateArguments& gates) {
  const ForwardArguments& args = gates.call;
  const auto heads = static_cast<unsigned>(args.HV);
  const int head = static_cast<int>(block_index() % heads), c = static_cast<int>(thread_index());
  const GateChunk chunk = gate_chunk(gates, block_index() / heads);
  if (c >= args.K || chunk.tokens == 0) return;
  const float growth = args.A_log != nullptr ? expf(args.A_log[head]) : 1.0f;
  const float bias = args.dt_bias != nullptr ? args.dt_bias[static_cast<std::int64_t>(head) * args.K + c] : 0.0f;
  const std::int64_t token = chunk.span.first + chunk.first, batch = chunk.span.batch;
  constexpr int ahead = 8;
  std::uint32_t bits[ahead];
  float sum = 0;
  for (int first = 0; first < chunk.tokens; first += ahead) {
#pragma unroll
    for (int i = 0; i < ahead; ++i)
      bits[i] = first + i < chunk.tokens ? load_bits(args.g.data, row_of(args.g, batch, token + first + i, head) + c, args.gate_format) : 0;
#pragma unroll 1
    for (int i = 0; i < ahead; ++i) {
      if (first + i >= chunk.tokens) break;
      std::uint32_t own = bits[0];
#pragma unroll
      for (int other = 0; other + 1 < ahead; ++other) bits[other] = bits[other + 1];
      const float decay = log_decay(args.gate, number_of(own, args.gate_format), bias, growth, args.lower_bound);
      sum += decay;
      const auto put = [&](const View& to, float x, Stored format) {
        if (to.data != nullptr) store_number(to.data, row_of(to, batch, token + first + i, head) + c, x, format);
      };
      put(gates.log_decay, decay, gates.log_decay_format);
      put(gates.sums, sum, gates.sums_format);
    }
  }
}

} // namespace kdacheck::cuda
