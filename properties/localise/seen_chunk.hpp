#pragma once
// The first wrong chunk of one head as a kernel computes it: by itself from the exact state where it goes wrong so, or else within the
// smallest call in which it does. A fault may hang on where a chunk stands, or on which head it belongs to.

#include "../experiments.hpp"

#include <cstdint>
#include <optional>
#include <string>

namespace kdacheck {

/// A chunk of one head of one sequence, and what the kernel wrote for it.
struct SeenChunk {
  Problem call; ///< as the kernel was called: one sequence
  std::int64_t head = 0, first = 0;
  Problem chunk;     ///< by itself: one head, from the exact state at its start and against the exact cotangent at its end
  Run run;           ///< the kernel's numbers for it, out of the call
  std::string where; ///< a clause that says in which call; empty: by itself

  bool alone() const { return where.empty(); }
};

/// Where a chunk of one head lies.
struct ChunkPlace {
  std::int64_t sequence, head, first, count;
};

/// The chunk in which a wrong place lies, the last one for a place in the final state; nothing in a sequence without tokens.
std::optional<ChunkPlace> chunk_of(const Contract&, const Problem&, const Place&);

/// Forward: the call ends with the chunk, so that the state after it is seen. Nothing where the kernel is right in, or does not take,
/// every such call.
std::optional<SeenChunk> wrong_chunk(const Experiment&, const Problem&, const ChunkPlace&);

/// The chunk of `count` tokens from `first` of a head in a call of one sequence that ends with it, if the kernel is wrong there.
std::optional<SeenChunk> seen_in(const Experiment&, Problem call, std::int64_t head, std::int64_t first, std::int64_t count,
                                 std::string where);

/// The part of a run of a call of one sequence that belongs to tokens [first, first + count) of a head. Gradients of q and k are the
/// head's own share: what the others of its group add exactly is taken away. The initial state's gradient is there if first is 0.
Run part_of(const Run&, const Problem& call, std::int64_t head, std::int64_t first, std::int64_t count);

} // namespace kdacheck
