#include "result_files.hpp"

#include "../reference/atomic_file.hpp"
#include "case_log.hpp"
#include "junit.hpp"
#include "report_json.hpp"
#include "summary_markdown.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>

namespace kdacheck {
namespace {

bool tell_the_same(const Tally& left, const Tally& right) {
  if (left.counts.by_verdict != right.counts.by_verdict || left.worst.has_value() != right.worst.has_value()) return false;
  if (!left.worst) return true;
  const double x = left.worst->finding.bound_util, y = right.worst->finding.bound_util;
  return x == y || (std::isnan(x) && std::isnan(y));
}

Results report_in(const std::filesystem::path& folder) {
  const auto path = folder / "report.json";
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::invalid_argument("cannot read " + path.string() + ", which `verify --out " + folder.string() + "` writes");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  return results_from_report_json(text, path.string());
}

} // namespace

void write_result_files(const Results& results, const std::filesystem::path& folder) {
  write_atomically(folder / "summary.md", to_summary_markdown(results));
  write_atomically(folder / "junit.xml", to_junit_xml(results));
  write_atomically(folder / "report.json", to_report_json(results)); // last: where it stands, the others do
}

RecordedRun read_run(const std::filesystem::path& folder) {
  Results results = report_in(folder);
  const std::filesystem::path path = folder / "cases.jsonl";
  if (!std::filesystem::is_regular_file(path)) throw std::invalid_argument("cannot read " + path.string());
  RecordedCases recorded = read_case_log(path, results.context.program);
  if (recorded.torn) throw std::invalid_argument(path.string() + " is cut off in its last line");
  Results again;
  for (const CaseResult& result : recorded.cases) add(again, result);
  const auto alike = [](const auto& left, const auto& right) {
    return left.first == right.first && tell_the_same(left.second, right.second);
  };
  if (total(again).by_verdict != total(results).by_verdict || !std::ranges::equal(again.groups, results.groups, alike))
    throw std::invalid_argument(path.string() + " holds other cases than " + (folder / "report.json").string() + " counts");
  if (recorded.cases.empty()) throw std::invalid_argument(folder.string() + " holds an empty run: there is nothing to report or compare");
  results.groups = std::move(again.groups);
  return {std::move(results), std::move(recorded.cases)};
}

} // namespace kdacheck
