#pragma once
// The decay factors of one chunk in fp64, shared by all perturbed runs of it.

#include "../budget_head.hpp"

#include <cstdint>
#include <vector>

namespace kdacheck {

/// Rows and columns of the score matrices are taken in blocks of 16, each with its own anchor r: e^{G_i-G_j} =
/// e^{G_i-r} e^{r-G_j}, where r is G at the first row of the block for columns before it (both factors decay), and G in
/// the middle of the block for the diagonal one, unless it would make a factor overflow: a kernel must then take the pairs one
/// by one, or anchors that are nearer.
inline constexpr std::int64_t score_block = 16;

struct ChunkFactors {
  std::int64_t first = 0, n = 0;                             ///< first token, number of tokens
  std::vector<double> G;                                     ///< [n,K] inclusive sums of log decay inside the chunk
  std::vector<double> in, out;                               ///< [n,K] e^G, e^{G_last - G}
  std::vector<double> whole;                                 ///< [K] e^{G_last}
  std::vector<double> row;                                   ///< [n,K] e^{G_i - r}, r at the start of i's block
  std::vector<std::vector<double>> column;                   ///< per block: [start of block, K] e^{r - G_j}
  std::vector<double> middle_row, middle_column;             ///< [n,K] e^{G_i - r}, e^{r - G_i}, r in the middle of i's block
  std::vector<char> steep;                                   ///< per block: the middle anchor would overflow; use `pair`
  std::vector<std::vector<double>> pair;                     ///< per steep block: [16,16,K] e^{G_i - G_j}, i >= j
  std::vector<double> before, before_row, before_middle_row; ///< DPLR: in, row, middle_row of the exclusive sum G - g
  std::vector<std::vector<double>> before_column;            ///< DPLR: column, anchored at the exclusive sum of the block's first row
  std::vector<std::vector<double>> before_pair;              ///< DPLR: e^{G_i - g_i - G_j}, i > j

  std::int64_t blocks() const { return (n + score_block - 1) / score_block; }
  /// Token whose G anchors the diagonal block.
  std::int64_t middle(std::int64_t block) const { return std::min(block * score_block + score_block / 2, n - 1); }
};

/// `scores`: the format that decayed keys and queries must not overflow.
ChunkFactors chunk_factors(const Head&, std::int64_t first, std::int64_t n, Format scores);

} // namespace kdacheck
