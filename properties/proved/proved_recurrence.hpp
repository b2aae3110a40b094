#pragma once
// Bound on the error of the token recurrence that no kernel which keeps its contract can exceed: derived in
// proved_recurrence.cpp for KDA, in proved_general_recurrence.cpp for the general rule.

#include "../budget_head.hpp"
#include "proved_units.hpp"

#include <cstdint>
#include <vector>

namespace kdacheck {

struct ChunkStarts;

/// By how much, column by column in the euclidean norm, a state that is kept in a coarse format may err before the first token. [V]
std::vector<double> error_of_stored_start(const ProvedUnits&, const Head&);

/// `token` [tokens] and `row` [K] receive the largest bound on an element of o and of the final state, if larger than what
/// stands there; `columns` [tokens + 1,V], if wanted, the bound on each column of the state before every token and after the last.
/// `interval`: tokens between two stored states; `gate_floor` as for ChunkBound. `from`, if given: states that another pass kept, with
/// errors of its own, any of which this one may go on from.
void bound_recurrence(const ProvedUnits&, const Head&, double gate_floor, std::int64_t interval, double* token, double* row,
                      double* columns = nullptr, const ChunkStarts* from = nullptr);

/// The same for S_t = (Diag(alpha_t) - a_t b_t^T) S_{t-1} + k_t v_t^T; a head of KDA is taken with a = beta k, b = alpha k and the key
/// beta k.
void bound_general_recurrence(const ProvedUnits&, const Head&, double gate_floor, std::int64_t interval, double* token, double* row,
                              double* columns = nullptr, const ChunkStarts* from = nullptr);

} // namespace kdacheck
