#include "compare_speed.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <stdexcept>
#include <tuple>

namespace kdacheck {
namespace {

using Json = nlohmann::ordered_json;

constexpr double least_slowdown = 1.1; // what compare asks of errors too: less is not worth a red light

struct Times {
  double least, median, most;
};
using Key = std::tuple<std::string, std::string, std::string>;

std::map<Key, Times> times_of(const Json& bench) {
  try {
    if (bench.at("schema_version") != 1)
      throw std::invalid_argument("bench.json has schema version " + bench.at("schema_version").dump() + "; this program reads version 1");
    std::map<Key, Times> times;
    for (const Json& row : bench.at("rows"))
      times[{row.at("kernel"), row.at("what"), row.at("case")}] = {row.at("least_ms"), row.at("median_ms"), row.at("most_ms")};
    return times;
  } catch (const Json::exception&) {
    throw std::invalid_argument("bench.json is not one of this suite");
  }
}

} // namespace

std::vector<SpeedChange> compare_speed(const Json& before, const Json& after) {
  const auto old_times = times_of(before), new_times = times_of(after);
  std::vector<SpeedChange> changes;
  for (const auto& [key, was] : old_times) {
    const auto found = new_times.find(key);
    if (found == new_times.end()) continue;
    const Times& is = found->second;
    SpeedChange change{.kernel = std::get<0>(key),
                       .what = std::get<1>(key),
                       .label = std::get<2>(key),
                       .ratio = is.median / was.median,
                       .low = is.least / was.most,
                       .high = is.most / was.least};
    change.worse = !(change.low <= 1) && !(change.ratio < least_slowdown);
    changes.push_back(std::move(change));
  }
  return changes;
}

std::string to_text(const std::vector<SpeedChange>& changes) {
  if (changes.empty()) return "";
  std::string text = fmt::format("\n{:<30} {:<46} {:<32} {:>24}\n", "time", "pass", "case", "ratio (least .. most)");
  for (const SpeedChange& change : changes)
    text += fmt::format("{:<30} {:<46} {:<32} {:>24}{}\n", change.kernel, change.what, change.label,
                        fmt::format("{:.3f} ({:.3f} .. {:.3f})", change.ratio, change.low, change.high), change.worse ? "  SLOWER" : "");
  const auto slower = std::ranges::count_if(changes, &SpeedChange::worse);
  return text + (slower ? fmt::format("SLOWER: {} of {} rows beyond the spread of their repeats\n", slower, changes.size())
                        : fmt::format("no slower beyond the spread of repeats ({} rows)\n", changes.size()));
}

} // namespace kdacheck
