#pragma once
// A bound that no kernel which keeps its contract can exceed, derived, not drawn.

#include "../budget.hpp"

namespace kdacheck {

/// The largest error over all evaluations of KDA that a contract permits:
///   order     the declared one; undeclared: every one of them, the general form with a = beta k, b = alpha k too
///   chunk     the declared length, or shorter blocks of chunk/2, chunk/4, ... (16 tokens at least) inside it, between which
///             the state stays in fp32 and is rounded to its declared format only every `chunk` tokens and at the end
///   sums      in any order, on tensor cores too; sums of log decay in any order; exponentials split by anchors
///   inverse   any algorithm with a small residual in the solve's format (proved_chunk.cpp, 4)
/// Derived in proved_chunk.cpp, proved_solve.cpp, proved_general.cpp (DPLR), proved_recurrence.cpp, proved_general_recurrence.cpp (DPLR)
/// and proved_units.hpp. Entries may be infinite: nothing is known there, nor anywhere where sums are in fp16.
/// `Submodels::first`: of one order and one length alone; what lies inside it lies inside that of all, at a part of the cost.
ProvedBound proved_bound(const Contract&, const Problem&, Submodels = Submodels::all);

/// The same for gradients, formed token by token (proved_adjoint.cpp) or in chunks (proved_chunk_adjoint.cpp, proved_general_adjoint.cpp);
/// both passes in chunks, if of unlike lengths, or both token by token. An undeclared order: the largest of all, any forward pass before
/// any reverse one (proved_starts.cpp), KDA through the general form too. Empty where sums are in fp16.
ProvedBound proved_gradient_bound(const Contract&, const Problem&, Submodels = Submodels::all);

/// log(1 + e^x) may be taken as it is written: the sum errs by one rounding of its size, 1, and the logarithm by two, which where e^x is
/// small is much against its value. Absolute error of a log decay of this head besides Head::gate_error.
double resolving_floor(const Problem&, std::int64_t head);

} // namespace kdacheck
