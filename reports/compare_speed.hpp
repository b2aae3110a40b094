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

/// A bench.json, and what to call it.
struct Bench {
  std::string path;
  nlohmann::ordered_json json;
};

/// Two benches: rows that both have, and how many only one has.
struct SpeedComparison {
  std::vector<SpeedChange> changes;
  std::size_t only_in_first = 0, only_in_second = 0;
};

/// Throws std::invalid_argument with one sentence that begins with the path for what is not a bench.json of schema version 1.
SpeedComparison compare_speed(const Bench& before, const Bench& after);

/// A line per row that both have, and a closing one; nothing for no rows.
std::string to_text(const SpeedComparison&);

} // namespace kdacheck
