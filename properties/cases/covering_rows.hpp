#pragma once
// Combinations: few rows in which every level of every factor meets every level of every other. Faults that need two things at once
// (wide values with a second head, a packed call with one member) are met by one of them, whichever two they are.

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace kdacheck {

/// A level per factor.
using CoveringRow = std::vector<int>;

/// A covering array of strength two over factors of so many levels (each at least 1), greedy as AETG (Cohen et al., IEEE TSE 23(7),
/// 1997): of some candidates the one with most pairs not met before, of these the one with most new triples. No row costs more than the
/// last of `limits`, and more than an earlier one only if no candidate within reach holds its pair for less; pairs that none holds at all
/// stay uncovered. The same rows on every machine.
std::vector<CoveringRow> covering_rows(std::span<const int> levels, const std::function<std::int64_t(const CoveringRow&)>& cost,
                                       std::span<const std::int64_t> limits);

/// Levels of two factors that no row holds together.
struct MissingPair {
  std::size_t first, second;
  int first_level, second_level;
};
std::vector<MissingPair> missing_pairs(std::span<const int> levels, std::span<const CoveringRow>);

} // namespace kdacheck
