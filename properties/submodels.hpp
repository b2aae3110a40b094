#pragma once
// Which models of a contract's rounding errors a budget rests on.

#include <cstdint>

namespace kdacheck {

/// A contract allows the errors of every order of evaluation that it leaves open, under either noise model. `first`: the first
/// order with independent noise alone, that of each addition in a sum of products included.
enum class Submodels : std::uint8_t { first, all };

} // namespace kdacheck
