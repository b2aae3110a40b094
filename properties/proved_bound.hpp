#pragma once
// A bound that no kernel which keeps its contract can exceed, derived, not drawn.

#include "budget.hpp"

namespace kdacheck {

/// For the token recurrence of KDA in fp32 (order=recurrence, operands and sums fp32): see proved_bound.cpp. Empty for
/// every other contract: none has been derived.
ProvedBound proved_bound(const Contract&, const Problem&);

} // namespace kdacheck
