#include "../reference/atomic_file.hpp"
#include "case_log.hpp"
#include "commands.hpp"
#include "page.hpp"
#include "page_data.hpp"
#include "result_files.hpp"

#include <fmt/format.h>

#include <cstdio>
#include <stdexcept>

namespace kdacheck {
namespace {

/// The cases that a folder's report was made from.
std::vector<CaseResult> cases_of(const Results& results, const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "cases.jsonl";
  if (!std::filesystem::is_regular_file(path)) throw std::invalid_argument("cannot read " + path.string());
  RecordedCases recorded = read_case_log(path, results.context.program);
  if (recorded.torn) throw std::invalid_argument(path.string() + " is cut off in its last line");
  Results again;
  for (const CaseResult& result : recorded.cases) add(again, result);
  if (total(again).by_verdict != total(results).by_verdict)
    throw std::invalid_argument(path.string() + " holds other cases than " + (folder / "report.json").string() + " counts");
  return std::move(recorded.cases);
}

} // namespace

int report_command(const ReportArguments& arguments) {
  const std::filesystem::path folder = arguments.folder;
  Results results = read_results(folder);
  const std::vector<CaseResult> cases = cases_of(results, folder);
  if (cases.empty()) throw std::invalid_argument(folder.string() + " holds an empty run: there is nothing to report");
  results.groups.clear(); // the log knows places that report.json leaves out
  Results again;
  for (const CaseResult& result : cases) add(again, result);
  results.groups = std::move(again.groups);
  const std::filesystem::path out = arguments.out.empty() ? folder / "report.html" : std::filesystem::path(arguments.out);
  const std::string page = to_page(to_page_json(results, cases), chart_library());
  write_atomically(out, page);
  fmt::print("wrote {} ({:.2f} MB)\n", out.string(), static_cast<double>(page.size()) / 1e6);
  return 0;
}

} // namespace kdacheck
