#include "compare.hpp"
#include "compare_speed.hpp"
#include "result_files.hpp"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>

namespace kdacheck {
namespace {

Bench bench_in(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "bench.json";
  std::ifstream file(path, std::ios::binary);
  auto json = nlohmann::ordered_json::parse(std::istreambuf_iterator<char>(file), {}, nullptr, false);
  if (json.is_discarded()) throw std::invalid_argument(path.string() + " is no JSON");
  return {path.string(), std::move(json)};
}

/// Times where both runs have them.
SpeedComparison speed_of(const std::filesystem::path& before, const std::filesystem::path& after) {
  const bool first = std::filesystem::exists(before / "bench.json"), second = std::filesystem::exists(after / "bench.json");
  if (first != second) std::printf("times not compared: only the %s run has a bench.json\n\n", first ? "first" : "second");
  if (!first || !second) return {};
  return compare_speed(bench_in(before), bench_in(after));
}

} // namespace

int compare_command(const std::string& before, const std::string& after) {
  const Comparison comparison = compare(read_run(before).results, read_run(after).results);
  const SpeedComparison speed = speed_of(before, after);
  std::fputs((to_text(comparison) + to_text(speed)).c_str(), stdout);
  return std::max(exit_status(comparison), std::ranges::any_of(speed.changes, &SpeedChange::worse) ? 1 : 0);
}

} // namespace kdacheck
