#pragma once
// The raw rows of a chunk on their way to a producer's bench.

#include "../device/rows.cuh"
#include "chunk_layout.cuh"

namespace kdacheck::cuda {

/// This lane's part of copying 16 rows of `row_bytes` each: a fixed 16-byte segment of every (32 / segments)-th row.
template <int row_bytes> struct RowCopy {
  static constexpr int segments = row_bytes / 16, rows_at_once = 32 / segments, steps = chunk_tokens / rows_at_once;
  const unsigned char* from; ///< this lane's segment of its first row of the sequence
  std::int64_t stride;       ///< bytes between rows

  /// `rows`: those of the chunk that belong to the sequence; the others become zero.
  __device__ __forceinline__ void start(Address to, std::int64_t first_row, int rows, unsigned lane) const {
    const int row = static_cast<int>(lane) / segments;
    const unsigned char* source = from + first_row * stride; // where nothing is read, it may lie outside the tensor
    const Address place = to + row * row_bytes + 16 * (lane % segments);
#pragma unroll
    for (int step = 0; step < steps; ++step, source += rows_at_once * stride)
      copy_async(place + step * rows_at_once * row_bytes, source, row + step * rows_at_once < rows ? 16 : 0);
  }
};

template <int row_bytes>
__device__ __forceinline__ RowCopy<row_bytes> copy_of(const View& view, Span span, int head, int element_bytes, unsigned lane) {
  using Copy = RowCopy<row_bytes>;
  // A sequence without tokens copies nothing, and its first row may lie outside the tensor: only its address is taken.
  const std::int64_t offset = row_of(view, span.batch, span.first, head);
  const std::int64_t row = lane / Copy::segments;
  return {static_cast<const unsigned char*>(view.data) + (offset + row * view.token) * element_bytes + 16 * (lane % Copy::segments),
          view.token * element_bytes};
}

/// The same of rows of which `present` bytes lie in memory; the others become zero.
template <int row_bytes>
__device__ __forceinline__ void start_narrow(const View& view, Address to, Span span, int head, int element_bytes, int present,
                                             std::int64_t first_row, int rows, unsigned lane) {
  constexpr int segments = row_bytes / 16;
  const auto* from = static_cast<const unsigned char*>(view.data) + row_of(view, span.batch, span.first + first_row, head) * element_bytes;
  const std::int64_t stride = view.token * element_bytes;
  for (int index = static_cast<int>(lane); index < chunk_tokens * segments; index += 32) {
    const int row = index / segments, place = 16 * (index % segments);
    copy_async(to + 16 * index, from + row * stride + place, row < rows && place < present ? 16 : 0);
  }
}

/// Starts copying q, k, g of a chunk. Addresses are worked out anew each time: registers are what a producer lacks.
template <int K, int pieces, Sweep sweep = Sweep::forward, bool narrow = false>
__device__ __forceinline__ void fetch_rows(const ForwardArguments& args, Address bench, Span span, int chunk, int head, int head_q,
                                           unsigned lane) {
  using Bench = WorkbenchLayout<K, pieces, sweep>;
  const std::int64_t first = static_cast<std::int64_t>(chunk) * chunk_tokens, left = span.length - first;
  const int rows = left < chunk_tokens ? static_cast<int>(left) : chunk_tokens;
  if constexpr (narrow) {
    const auto start = [&]<int element_bytes>(const View& view, int place, int of) {
      start_narrow<element_bytes * K>(view, bench + place, span, of, element_bytes, element_bytes * args.K, first, rows, lane);
    };
    if constexpr (sweep != Sweep::states) start.template operator()<2>(args.q, Bench::raw_q, head_q);
    start.template operator()<2>(args.k, Bench::raw_k, head_q);
    if (args.gate != Gate::absent) {
      if (args.gate_format == Stored::fp32)
        start.template operator()<4>(args.g, Bench::raw_g, head);
      else
        start.template operator()<2>(args.g, Bench::raw_g, head);
    }
  } else {
    if constexpr (sweep != Sweep::states) copy_of<2 * K>(args.q, span, head_q, 2, lane).start(bench + Bench::raw_q, first, rows, lane);
    copy_of<2 * K>(args.k, span, head_q, 2, lane).start(bench + Bench::raw_k, first, rows, lane);
    if (args.gate != Gate::absent) {
      if (args.gate_format == Stored::fp32)
        copy_of<4 * K>(args.g, span, head, 4, lane).start(bench + Bench::raw_g, first, rows, lane);
      else
        copy_of<2 * K>(args.g, span, head, 2, lane).start(bench + Bench::raw_g, first, rows, lane);
    }
  }
  copy_async_commit();
}

} // namespace kdacheck::cuda
