#pragma once
// Two bench.json side by side: whose time changed beyond the spread of its repeats.

#include <nlohmann/json.hpp>

#include <string>
#include <vector>

namespace kdacheck {

/// A row that both runs have: same kernel, pass and case. `ratio` is that of the medians, second over first; `low` and `high` its
/// extremes over the repeats: least over most, and most over least.
struct SpeedChange {
  std::string kernel, what, label;
  double ratio = 1, low = 1, high = 1;
  bool worse = false; ///< every repeat of the second was slower than every one of the first, and the median by a tenth
};

/// Throws std::invalid_argument with one sentence for what is not a bench.json of schema version 1.
std::vector<SpeedChange> compare_speed(const nlohmann::ordered_json& before, const nlohmann::ordered_json& after);

/// A line per row, and a closing one; nothing for no rows.
std::string to_text(const std::vector<SpeedChange>&);

} // namespace kdacheck
