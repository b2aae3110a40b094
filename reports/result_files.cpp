#include "result_files.hpp"

#include "../reference/atomic_file.hpp"
#include "../reference/named_file.hpp"
#include "case_log.hpp"
#include "junit.hpp"
#include "report_json.hpp"
#include "summary_markdown.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

namespace kdacheck {
namespace {

bool tell_the_same(const Tally& left, const Tally& right) {
  if (left.counts.by_verdict != right.counts.by_verdict || left.worst.has_value() != right.worst.has_value()) return false;
  if (!left.worst) return true;
  const auto place = [](const CaseResult& worst) { return worst.finding.place ? worst.finding.place->tensor : std::string(); };
  const CaseResult &one = *left.worst, &other = *right.worst;
  const double x = one.finding.bound_util, y = other.finding.bound_util;
  return (x == y || (std::isnan(x) && std::isnan(y))) && one.finding.verdict == other.finding.verdict && one.replay == other.replay &&
         one.shrunk == other.shrunk && one.finding.detail == other.finding.detail && place(one) == place(other);
}

std::string report_in(const std::filesystem::path& folder) {
  demand_folder(folder);
  const auto path = folder / "report.json";
  if (!std::filesystem::exists(path))
    throw std::invalid_argument("cannot read " + path.string() + ", which `verify --out " + folder.string() + "` writes");
  return text_of_file(path);
}

} // namespace

void write_result_files(const Results& results, const std::filesystem::path& folder) {
  write_atomically(folder / "summary.md", to_summary_markdown(results));
  write_atomically(folder / "junit.xml", to_junit_xml(results));
  write_atomically(folder / "report.json", to_report_json(results)); // last: where it stands, the others do
}

RecordedRun read_run(const std::filesystem::path& folder) {
  const std::string report = report_in(folder), named = (folder / "report.json").string();
  Results results = results_from_report_json(report, named);
  const std::filesystem::path path = folder / "cases.jsonl";
  demand_file(path);
  RecordedCases recorded = read_case_log(path, results.context.program);
  if (recorded.torn) throw std::invalid_argument(path.string() + " is cut off in its last line");
  Results again;
  for (const CaseResult& result : recorded.cases) add(again, result);
  const auto alike = [](const auto& left, const auto& right) {
    return left.first == right.first && tell_the_same(left.second, right.second);
  };
  if (total(again).by_verdict != total(results).by_verdict || !std::ranges::equal(again.groups, results.groups, alike))
    throw std::invalid_argument(path.string() + " holds other cases than " + named + " counts");
  if (const auto key = departure_from_cases(report, again))
    throw std::invalid_argument(named + ": '" + *key + "' is not what the cases in cases.jsonl give");
  if (recorded.cases.empty()) throw std::invalid_argument(folder.string() + " holds an empty run: there is nothing to report or compare");
  results.groups = std::move(again.groups);
  return {std::move(results), std::move(recorded.cases)};
}

} // namespace kdacheck
