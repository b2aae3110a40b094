#pragma once
// What the sweeps leave in the workspace (backward_workspace.hpp), from the accumulators of a warp that works on 16 value
// columns, and the tiles of values that they read.

#include "../chunk/chunk_consumer.cuh"
#include "../host/backward_workspace.hpp"

namespace kdacheck::cuda {

/// Words of the state of one head at one boundary.
constexpr __device__ __host__ __forceinline__ std::int64_t state_words(int K, int V) { return std::int64_t{K} * V; }

/// Slot of the boundary that lies `boundary` segments after the first token of a sequence; boundary >= 1.
__device__ __forceinline__ std::int64_t boundary_slot(const ForwardArguments& args, Span span, std::int64_t boundary) {
  return (span.batch * args.T + span.first) / segment_tokens + boundary - 1;
}

/// S^T [16 columns, K] in fp32, in the order of right operands of products over value columns: parts 0 and 1, then 2 and 3.
template <int K, bool narrow = false>
__device__ __forceinline__ void store_boundary(const float (&S)[K / 8][4], std::uint32_t* slot, const ForwardArguments& args, int column,
                                               unsigned lane) {
  const int groups = channels_of<K, narrow>(args) / 16;
#pragma unroll
  for (int group = 0; group < K / 16; ++group) {
    if (narrow && group >= groups) return;
    std::uint32_t words[2][4];
#pragma unroll
    for (int part = 0; part < 4; ++part) {
      const float(&tile)[4] = S[2 * group + part / 2];
      const std::uint32_t x = float_as_bits(tile[2 * (part % 2)]), y = float_as_bits(tile[2 * (part % 2) + 1]);
      const std::uint32_t high = transpose_matrix(x >> 16 | (y & 0xffff0000u)), low = transpose_matrix((x & 0xffffu) | y << 16);
      words[part / 2][2 * (part % 2)] = high << 16 | (low & 0xffffu);
      words[part / 2][2 * (part % 2) + 1] = (high & 0xffff0000u) | low >> 16;
    }
#pragma unroll
    for (int half = 0; half < 2; ++half)
      store_global_passing(slot + ((half * groups + group) * (args.V / 16) + column / 16) * 128 + 4 * static_cast<int>(lane), words[half]);
  }
}

/// X^T [16 columns, 16 tokens] as rows of tokens; those past the end of the sequence are not stored. `to` is the chunk's first
/// row at this warp's columns, `row` the elements between rows, `plane` those between terms.
template <int pieces>
__device__ __forceinline__ void store_rows(const float (&X)[2][4], std::uint16_t* to, std::int64_t row, std::int64_t plane, int tokens,
                                           unsigned lane) {
#pragma unroll
  for (int part = 0; part < 4; ++part) {
    const int token = 8 * (part / 2) + static_cast<int>(lane / 4), v = 8 * (part % 2) + 2 * static_cast<int>(lane % 4);
    const Terms<pieces> terms = split<pieces>(X[part / 2][2 * (part % 2)], X[part / 2][2 * (part % 2) + 1]);
#pragma unroll
    for (int piece = 0; piece < pieces; ++piece) {
      const std::uint32_t word = transpose_matrix(terms.word[piece]);
      if (token < tokens) *reinterpret_cast<std::uint32_t*>(to + piece * plane + token * row + v) = word;
    }
  }
}

/// Starts copying a chunk's [16 tokens, 16 columns] of a tensor with 16-bit elements: 16 bytes a lane. `from` is this lane's
/// part of the sequence's first row.
__device__ __forceinline__ void fetch_tile(Address to, const std::uint16_t* from, std::int64_t stride, std::int64_t first, Span span,
                                           bool present, unsigned lane) {
  const unsigned token = lane / 2, half = lane % 2;
  const std::int64_t t = first + token;
  const bool inside = present && t < span.length;
  copy_async(to + tile_offset(token, half), from + (inside ? t * stride : 0), inside ? 16 : 0);
}

/// The transpose of a tile: word m holds tokens 2(l%4), 2(l%4)+1 (8 more for m >= 2) of column l/4 (8 more for odd m).
__device__ __forceinline__ void load_tile_transposed(std::uint32_t (&x)[4], Address tile, unsigned lane) {
  load_matrices_transposed(x, tile + tile_offset(lane % 8 + 8 * (lane / 16), (lane / 8) % 2));
}

} // namespace kdacheck::cuda
