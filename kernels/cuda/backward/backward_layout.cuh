#pragma once
// Shared memory of the last pass, one block per segment of 64 tokens and q/k head, and where a block works.
//
// Operands (16-bit terms; rows of keys exchanged by swizzled(), rows of values 16 bytes longer than their numbers):
//   kd qd kr [64,K]   R M dO [64,V]   scores of the six pairs of different sub-blocks of 16 tokens, [16,16] each, twice
// Results take the place of operands that are no longer needed:
//   columns [64,K] fp32 over kd qd    rows of q and of k [64,K] fp32 over kr R M dO    scores of equal sub-blocks in fp32

#include "backward_stores.cuh"

namespace kdacheck::cuda {

inline constexpr int sub_blocks = segment_tokens / chunk_tokens, sub_block_pairs = sub_blocks * (sub_blocks - 1) / 2;

constexpr __device__ __host__ int larger(int a, int b) { return a > b ? a : b; }

template <int K, int pieces, bool half_precision> struct GradientLayout {
  static constexpr int key_piece = segment_tokens * K * 2, result = segment_tokens * K * 4;
  static constexpr int cotangent_pieces = half_precision ? pieces : 1;
  static constexpr int kd = 0, qd = kd + pieces * key_piece, columns = 0;
  static constexpr int kr = larger(2 * pieces * key_piece, result), R = kr + pieces * key_piece, row_q = kr, row_k = kr + result;
  static constexpr int score_bytes = larger(2 * sub_block_pairs * pieces * tile_bytes, 2 * sub_blocks * 1024);
  static constexpr int diagonal_turns = larger(128 / K, 1); ///< scores of equal sub-blocks that a warp makes
  // What depends on V: byte offsets for this block.
  int value_row, value_piece, M, d_o, scores, gammas, ends, kept, betas, norms, sums, bytes;
  constexpr __device__ __host__ explicit GradientLayout(int V)
      : value_row(2 * V + 16), value_piece(segment_tokens * value_row), M(R + pieces * value_piece), d_o(M + pieces * value_piece),
        scores(larger(d_o + cotangent_pieces * value_piece, row_k + result)), gammas(scores + score_bytes),
        ends(gammas + sub_blocks * K * 4), kept(ends + K * 4), betas(kept + K * 4), norms(betas + segment_tokens * 4),
        sums(norms + 2 * segment_tokens * 4), bytes(sums + K / 32 * segment_tokens * 4) {}
  /// Scores between sub-blocks i > j; `kind` 0: q with k, 1: k with k.
  static constexpr __device__ int score_tile(int kind, int i, int j) {
    return (kind * sub_block_pairs + i * (i - 1) / 2 + j) * pieces * tile_bytes;
  }
};

/// Byte offset of element (row, channel) of a result: neighbouring rows lie in different banks.
template <int K> constexpr __device__ __forceinline__ unsigned result_offset(unsigned row, unsigned channel) {
  return row * 4 * K + ((4 * channel) ^ ((row & 3) * 32));
}

/// Where one piece of `length` tokens of a sequence lies.
template <int length> struct PieceOfSequence {
  Span span;
  std::int64_t n, number; ///< sequence, and which piece of it
  int tokens;             ///< 0: this slot of the grid holds none
  __device__ __forceinline__ std::int64_t first() const { return span.first + number * length; }
  __device__ __forceinline__ bool last() const { return (number + 1) * length >= span.length; }
};
using Segment = PieceOfSequence<segment_tokens>;
using ChunkPlace = PieceOfSequence<chunk_tokens>;

template <int length> __device__ __forceinline__ PieceOfSequence<length> piece_of(const ForwardArguments& args, std::int64_t slot) {
  PieceOfSequence<length> segment{};
  if (args.cu_seqlens == nullptr) {
    // Slots number less than 2^32: they are part of the grid.
    const auto each = static_cast<unsigned>((args.T + length - 1) / length), place = static_cast<unsigned>(slot);
    segment.n = place / each;
    segment.number = place % each;
    segment.span = span_of(args, segment.n);
  } else {
    // Sequence n owns the slots from first / length + n on: the last n that starts at or before this one.
    std::int64_t low = 0, high = args.N - 1;
    while (low < high) {
      const std::int64_t middle = (low + high + 1) / 2;
      if (span_of(args, middle).first / length + middle <= slot)
        low = middle;
      else
        high = middle - 1;
    }
    segment.n = low;
    segment.span = span_of(args, low);
    segment.number = slot - segment.span.first / length - low;
  }
  const std::int64_t left = segment.span.length - segment.number * length;
  segment.tokens = left < 0 ? 0 : left < length ? static_cast<int>(left) : length;
  return segment;
}

} // namespace kdacheck::cuda
