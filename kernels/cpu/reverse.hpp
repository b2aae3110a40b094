#pragma once
// Walks the chunks of a sequence from the last to the first, with what the forward pass knew of each. States are kept at
// the start of every segment of about 2048 tokens; inside a segment every chunk is computed again and kept.

#include "arena.hpp"

#include <algorithm>
#include <cstdint>

namespace kdacheck::cpu {

/// Memory of such a walk.
struct Walk {
  std::int64_t C = 0, segment = 0; ///< tokens in a chunk, chunks in a segment
  std::int64_t state_size = 0;     ///< floats
  float* checkpoints = nullptr;    ///< state at the start of each segment; the first is the initial state
  std::byte* records = nullptr;    ///< one record per chunk of a segment
  std::size_t record_bytes = 0;
};

/// Takes the memory for sequences of up to `longest` tokens.
inline Walk take_walk(Arena& arena, std::int64_t longest, std::int64_t C, std::int64_t state_size, std::size_t record_bytes,
                      std::int64_t segment_tokens = 2048) {
  const std::int64_t chunks = std::max<std::int64_t>(1, (longest + C - 1) / C);
  Walk walk{.C = C, .segment = std::min(chunks, std::max<std::int64_t>(1, segment_tokens / C)), .state_size = state_size};
  walk.checkpoints = arena.floats(state_size * ((chunks + walk.segment - 1) / walk.segment));
  walk.records = arena.take<std::byte>(walk.segment * static_cast<std::int64_t>(record_bytes));
  walk.record_bytes = record_bytes;
  return walk;
}

/// A step forward is advance(t, n, record, next): fills the record of tokens [t, t + n) from record.state and writes the
/// state after them to next unless it is null. A step back is retreat(t, n, record). `record_in` lays out a record.
template <class RecordIn, class Advance, class Retreat>
void walk_back(const Walk& walk, std::int64_t length, RecordIn record_in, Advance advance, Retreat retreat) {
  const auto record = [&](std::int64_t index) {
    Arena arena{walk.records + static_cast<std::size_t>(index) * walk.record_bytes};
    return record_in(arena);
  };
  const auto rows = [&](std::int64_t chunk) { return std::min(walk.C, length - chunk * walk.C); };
  const std::int64_t chunks = (length + walk.C - 1) / walk.C, segments = (chunks + walk.segment - 1) / walk.segment;
  const auto start = [&](std::int64_t segment, float* state) {
    const float* kept = walk.checkpoints + segment * walk.state_size;
    std::copy(kept, kept + walk.state_size, state);
  };
  for (std::int64_t segment = 0; segment + 1 < segments; ++segment) {
    auto only = record(0);
    start(segment, only.state);
    for (std::int64_t chunk = segment * walk.segment; chunk < (segment + 1) * walk.segment; ++chunk)
      advance(chunk * walk.C, rows(chunk), only, only.state);
    std::copy(only.state, only.state + walk.state_size, walk.checkpoints + (segment + 1) * walk.state_size);
  }
  for (std::int64_t segment = segments - 1; segment >= 0; --segment) {
    const std::int64_t first = segment * walk.segment, end = std::min(chunks, first + walk.segment);
    start(segment, record(0).state);
    for (std::int64_t chunk = first; chunk < end; ++chunk) {
      auto here = record(chunk - first);
      advance(chunk * walk.C, rows(chunk), here, chunk + 1 < end ? record(chunk + 1 - first).state : nullptr);
    }
    for (std::int64_t chunk = end - 1; chunk >= first; --chunk) {
      auto here = record(chunk - first);
      retreat(chunk * walk.C, rows(chunk), here);
    }
  }
}

} // namespace kdacheck::cpu
