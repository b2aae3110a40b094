#pragma once
// Bound on the error of KDA's token recurrence that no kernel which keeps its contract can exceed: derived in
// proved_recurrence.cpp.

#include "budget_head.hpp"
#include "proved_units.hpp"

#include <cstdint>
#include <vector>

namespace kdacheck {

/// `token` [tokens] and `row` [K] receive the largest bound on an element of o and of the final state, if larger than what
/// stands there. `interval`: tokens between two stored states; `gate_floor` as for ChunkBound.
void bound_recurrence(const ProvedUnits&, const Head&, double gate_floor, std::int64_t interval, double* token, double* row);

} // namespace kdacheck
