#include "../reference/named_file.hpp"
#include "compare.hpp"
#include "compare_speed.hpp"
#include "result_files.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <stdexcept>

namespace kdacheck {
namespace {

Bench bench_in(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "bench.json";
  auto json = nlohmann::ordered_json::parse(text_of_file(path), nullptr, false);
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

std::string line_of(const char* which, const std::string& folder, const Results& run) {
  const Context& context = run.context;
  return fmt::format("{:<7} {}: commit {}, {}, tier {}, seed {}, {} cases, {}\n", which, folder,
                     context.commit.empty() ? "none" : context.commit, context.cpu, context.tier, context.seed, total(run).cases(),
                     context.started);
}

} // namespace

int compare_command(const std::string& before, const std::string& after) {
  const Results first = read_run(before).results, second = read_run(after).results;
  const Comparison comparison = compare(first, second);
  const SpeedComparison speed = speed_of(before, after);
  std::fputs((line_of("first", before, first) + line_of("second", after, second) + "\n" + to_text(comparison) + to_text(speed)).c_str(),
             stdout);
  return std::max(exit_status(comparison), std::ranges::any_of(speed.changes, &SpeedChange::worse) ? 1 : 0);
}

} // namespace kdacheck
