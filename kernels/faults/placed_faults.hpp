#pragma once
// A planted fault that acts in a part of its kernel only, as a tile or a scratch buffer that is wrong somewhere does.

#include "faults.hpp"

namespace kdacheck {

/// Where a fault acts: in the chunks of every sequence from `first_chunk` on (what it does inside a chunk), in value head `head` alone.
struct Placement {
  std::int64_t first_chunk = 0;
  std::int64_t head = -1; ///< -1: all
  bool in_head(std::int64_t h) const { return head < 0 || head == h; }
  bool in_chunk(std::int64_t index) const { return index >= first_chunk; }
};

/// As faulty_kernel(info), with the fault acting there only.
Kernel faulty_kernel(const FaultInfo&, const Placement&);

} // namespace kdacheck
