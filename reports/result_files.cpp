#include "result_files.hpp"

#include "../reference/atomic_file.hpp"
#include "junit.hpp"
#include "report_json.hpp"
#include "summary_markdown.hpp"

#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>

namespace kdacheck {

void write_result_files(const Results& results, const std::filesystem::path& folder) {
  write_atomically(folder / "summary.md", to_summary_markdown(results));
  write_atomically(folder / "junit.xml", to_junit_xml(results));
  write_atomically(folder / "report.json", to_report_json(results)); // last: where it stands, the others do
}

Results read_results(const std::filesystem::path& folder) {
  const auto path = folder / "report.json";
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::invalid_argument("cannot read " + path.string());
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  return results_from_report_json(text, path.string());
}

} // namespace kdacheck
