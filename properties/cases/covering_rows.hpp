#pragma once
// Combinations: few rows in which every level of every factor meets every level of every other. Faults that need two things at once
// (wide values with a second head, a packed call with one member) are met by one of them, whichever two they are.

#include <functional>
#include <span>
#include <vector>

namespace kdacheck {

/// A level per factor.
using CoveringRow = std::vector<int>;

/// A covering array of strength two over factors of so many levels (each at least 1), greedy as AETG (Cohen et al., IEEE TSE 23(7),
/// 1997): of some candidates the one with most pairs not met before, of these the one with most new triples. Rows that are not `allowed`
/// are left out; pairs that no candidate within reach may hold stay uncovered. The same rows on every machine.
std::vector<CoveringRow> covering_rows(std::span<const int> levels, const std::function<bool(const CoveringRow&)>& allowed);

/// Levels of two factors that no row holds together.
struct MissingPair {
  std::size_t first, second;
  int first_level, second_level;
};
std::vector<MissingPair> missing_pairs(std::span<const int> levels, std::span<const CoveringRow>);

} // namespace kdacheck
