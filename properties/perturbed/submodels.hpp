#pragma once
// Which models of a contract's rounding errors a budget rests on.

#include <cstdint>

namespace kdacheck {

/// A contract allows the errors of every order of evaluation that it leaves open, under every noise model. `first`: the first
/// order with independent noise alone, that of each addition in a sum of products included. `all_in_range`: all of them, as if no format
/// of the contract overflowed.
enum class Submodels : std::uint8_t { first, all, all_in_range };

inline bool takes_all(Submodels submodels) { return submodels != Submodels::first; }

} // namespace kdacheck
