#pragma once
// Batched, padded and packed tokens brought to one form: rows that are there, sequence after sequence.

#include <cstdint>
#include <span>
#include <vector>

namespace kdacheck::modules {

struct PackedRows {
  std::vector<std::int64_t> cu_seqlens; ///< [N+1]
  bool all = true;                      ///< every row is there, in order: nothing needs to be copied
  std::int64_t rows = 0;                ///< B T
  std::vector<std::int64_t> source;     ///< of each packed row, unless all are there

  /// Packed rows of x [B,T,width]; empty if all are there.
  std::vector<float> gathered(std::span<const float> x, std::int64_t width) const;
  /// [B,T,width] from packed rows, 0 in rows that are not there.
  std::vector<float> scattered(std::span<const float> packed, std::int64_t width) const;
};

/// B sequences of T tokens, or packed by cu_seqlens (B = 1); a mask [B,T] is 0 where no token is. Throws
/// std::invalid_argument with a sentence for sizes that do not fit.
PackedRows packed_rows(std::int64_t B, std::int64_t T, std::span<const std::int64_t> cu_seqlens, std::span<const std::uint8_t> mask);

} // namespace kdacheck::modules
