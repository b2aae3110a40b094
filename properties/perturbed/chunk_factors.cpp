#include "chunk_factors.hpp"

#include <algorithm>
#include <cmath>

namespace kdacheck {
namespace {

// e^300 leaves room for |k|^2 and for sums in fp64; beyond it pairs are formed one by one
constexpr double steepest = 300;

/// Logarithm of the largest factor with which no operand of the chunk's scores reaches half of what its format can hold.
double room_to_grow(const Head& head, std::int64_t first, std::int64_t n, Format scores) {
  if (scores != Format::fp16) return steepest;
  double size = 0x1p-126;
  for (std::int64_t entry = first * head.K; entry < (first + n) * head.K; ++entry) {
    const auto at = static_cast<std::size_t>(entry);
    size = std::max({size, std::abs(head.k[at]), std::abs(head.scale * head.q[at])});
    if (head.dplr) size = std::max({size, std::abs(head.a[at]), std::abs(head.b[at])});
  }
  return std::log(largest(scores) / (2 * size));
}

} // namespace

ChunkFactors chunk_factors(const Head& head, std::int64_t first, std::int64_t n, Format scores) {
  const std::int64_t K = head.K;
  const double room = room_to_grow(head, first, n, scores);
  const auto at = [K](std::int64_t i, std::int64_t c) { return static_cast<std::size_t>(i * K + c); };
  ChunkFactors f;
  f.first = first;
  f.n = n;
  f.G.resize(static_cast<std::size_t>(n * K));
  f.in = f.out = f.row = f.middle_row = f.middle_column = f.G;
  f.whole.resize(static_cast<std::size_t>(K));
  std::vector<double> exclusive(head.dplr ? f.G.size() : 0);
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t c = 0; c < K; ++c) {
      const double previous = i > 0 ? f.G[at(i - 1, c)] : 0.0;
      f.G[at(i, c)] = previous + head.g[at(first + i, c)];
      if (head.dplr) exclusive[at(i, c)] = previous;
    }
  if (head.dplr) f.before = f.before_row = f.before_middle_row = f.G;
  f.steep.assign(static_cast<std::size_t>(f.blocks()), 0);
  f.pair.resize(f.steep.size());
  f.before_pair.resize(f.steep.size());
  f.column.resize(f.steep.size());
  f.before_column.resize(f.steep.size());
  for (std::int64_t c = 0; c < K; ++c) f.whole[static_cast<std::size_t>(c)] = std::exp(f.G[at(n - 1, c)]);
  for (std::int64_t block = 0; block < f.blocks(); ++block) {
    const auto b = static_cast<std::size_t>(block);
    const std::int64_t start = block * score_block, end = std::min(start + score_block, n), middle = f.middle(block);
    f.column[b].resize(static_cast<std::size_t>(start * K));
    for (std::int64_t j = 0; j < start; ++j)
      for (std::int64_t c = 0; c < K; ++c) f.column[b][at(j, c)] = std::exp(f.G[at(start, c)] - f.G[at(j, c)]);
    if (head.dplr) {
      f.before_column[b].resize(static_cast<std::size_t>(start * K));
      for (std::int64_t j = 0; j < start; ++j)
        for (std::int64_t c = 0; c < K; ++c) f.before_column[b][at(j, c)] = std::exp(exclusive[at(start, c)] - f.G[at(j, c)]);
    }
    for (std::int64_t c = 0; c < K; ++c) {
      const double above = (head.dplr ? exclusive : f.G)[at(start, c)], anchor = f.G[at(middle, c)], below = f.G[at(end - 1, c)];
      if (!(above - below < steepest) || !(above - anchor < room) || !(anchor - below < room)) f.steep[b] = 1;
    }
    for (std::int64_t i = start; i < end; ++i)
      for (std::int64_t c = 0; c < K; ++c) {
        const double G = f.G[at(i, c)];
        f.in[at(i, c)] = std::exp(G);
        f.out[at(i, c)] = std::exp(f.G[at(n - 1, c)] - G);
        f.row[at(i, c)] = std::exp(G - f.G[at(start, c)]);
        f.middle_row[at(i, c)] = f.steep[b] ? 1.0 : std::exp(G - f.G[at(middle, c)]);
        f.middle_column[at(i, c)] = f.steep[b] ? 1.0 : std::exp(f.G[at(middle, c)] - G);
        if (!head.dplr) continue;
        f.before[at(i, c)] = std::exp(exclusive[at(i, c)]);
        f.before_row[at(i, c)] = std::exp(exclusive[at(i, c)] - exclusive[at(start, c)]);
        f.before_middle_row[at(i, c)] = f.steep[b] ? 1.0 : std::exp(exclusive[at(i, c)] - f.G[at(middle, c)]);
      }
    if (!f.steep[b]) continue;
    f.pair[b].assign(static_cast<std::size_t>(score_block * score_block * K), 0.0);
    if (head.dplr) f.before_pair[b] = f.pair[b];
    for (std::int64_t i = start; i < end; ++i)
      for (std::int64_t j = start; j <= i; ++j)
        for (std::int64_t c = 0; c < K; ++c) {
          const auto entry = static_cast<std::size_t>(((i - start) * score_block + j - start) * K + c);
          f.pair[b][entry] = std::exp(f.G[at(i, c)] - f.G[at(j, c)]);
          if (head.dplr && j < i) f.before_pair[b][entry] = std::exp(exclusive[at(i, c)] - f.G[at(j, c)]);
        }
  }
  return f;
}

} // namespace kdacheck
