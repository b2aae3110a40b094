#pragma once
// Every intermediate of the chunkwise form, computed with 50 digits, for golden tensors and for finding the stage at which
// a chunk kernel goes wrong.

#include "oracle.hpp"
#include "problem.hpp"

#include <cstdint>
#include <vector>

namespace kdacheck {

/// One chunk of one value head; tensors and their meaning as in chunk_algebra.hpp, row-major. Those that the rule does not
/// have are empty.
struct ChunkIntermediates {
  std::int64_t sequence = 0, head = 0;
  std::int64_t first = 0, length = 0; ///< tokens [first, first + length) of the sequence
  Digits G;                           ///< [C,K]
  Digits start;                       ///< [K,V]
  Digits Akk, Aqk, Abk, Aqa, T;       ///< [C,C]
  Digits W;                           ///< [C,K]
  Digits U, O;                        ///< [C,V]
  Digits end;                         ///< [K,V]
};

/// All chunks of C tokens, by sequence, head and place. ln alpha must be finite (A_log far beyond 1e18 is not).
/// Errors: throws std::invalid_argument with the sentence of `malformed`, or if C < 1.
std::vector<ChunkIntermediates> chunk_intermediates(const Problem&, std::int64_t C);

} // namespace kdacheck
