#pragma once
// A bound that no kernel which keeps its contract can exceed, derived, not drawn.

#include "budget.hpp"

namespace kdacheck {

/// The largest error over all evaluations of KDA that a contract permits:
///   order     the declared one; undeclared: every one of them, the general form with a = beta k, b = alpha k too
///   chunk     the declared length, or shorter blocks of chunk/2, chunk/4, ... (16 tokens at least) inside it, between which
///             the state stays in fp32 and is rounded to its declared format only every `chunk` tokens and at the end
///   sums      in any order, on tensor cores too; sums of log decay in any order; exponentials split by anchors
///   inverse   any algorithm with a small residual in the solve's format (proved_chunk.cpp, 4)
/// Derived in proved_chunk.cpp, proved_solve.cpp, proved_general.cpp (DPLR), proved_recurrence.cpp and proved_units.hpp. Entries may be
/// infinite: nothing is known there. Empty where none was derived: the rule DPLR token by token (order=recurrence, or undeclared).
ProvedBound proved_bound(const Contract&, const Problem&);

} // namespace kdacheck
