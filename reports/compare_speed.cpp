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

std::map<Key, Times> times_of(const Bench& bench) {
  try {
    if (const Json& version = bench.json.at("schema_version"); version != 1)
      throw std::invalid_argument(bench.path + " has schema version " + version.dump() + "; this program reads version 1");
    std::map<Key, Times> times;
    for (const Json& row : bench.json.at("rows"))
      times[{row.at("kernel"), row.at("what"), row.at("case")}] = {row.at("least_ms"), row.at("median_ms"), row.at("most_ms")};
    return times;
  } catch (const Json::exception&) {
    throw std::invalid_argument(bench.path + " is not a bench.json of this suite");
  }
}

} // namespace

SpeedComparison compare_speed(const Bench& before, const Bench& after) {
  const auto old_times = times_of(before), new_times = times_of(after);
  SpeedComparison comparison;
  for (const auto& [key, was] : old_times) {
    const auto found = new_times.find(key);
    if (found == new_times.end()) {
      ++comparison.only_in_first;
      continue;
    }
    const Times& is = found->second;
    SpeedChange change{.kernel = std::get<0>(key),
                       .what = std::get<1>(key),
                       .label = std::get<2>(key),
                       .ratio = is.median / was.median,
                       .low = is.least / was.most,
                       .high = is.most / was.least};
    change.worse = !(change.low <= 1) && !(change.ratio < least_slowdown);
    comparison.changes.push_back(std::move(change));
  }
  comparison.only_in_second = new_times.size() - comparison.changes.size();
  return comparison;
}

std::string to_text(const SpeedComparison& comparison) {
  const auto& [changes, only_in_first, only_in_second] = comparison;
  const std::string others = only_in_first + only_in_second > 0
                                 ? fmt::format("times: {} rows only in the first, {} only in the second\n", only_in_first, only_in_second)
                                 : "";
  if (changes.empty()) return others;
  std::string text = fmt::format("\n{:<30} {:<46} {:<32} {:>24}\n", "time", "pass", "case", "ratio (least .. most)");
  for (const SpeedChange& change : changes)
    text += fmt::format("{:<30} {:<46} {:<32} {:>24}{}\n", change.kernel, change.what, change.label,
                        fmt::format("{:.3f} ({:.3f} .. {:.3f})", change.ratio, change.low, change.high), change.worse ? "  SLOWER" : "");
  const auto slower = std::ranges::count_if(changes, &SpeedChange::worse);
  return text + others +
         (slower ? fmt::format("SLOWER: {} of {} rows beyond the spread of their repeats\n", slower, changes.size())
                 : fmt::format("no slower beyond the spread of repeats ({} rows)\n", changes.size()));
}

} // namespace kdacheck
