#include "../reference/atomic_file.hpp"
#include "commands.hpp"
#include "history.hpp"
#include "page.hpp"
#include "result_files.hpp"

#include <fmt/format.h>

namespace kdacheck {

int history_command(const ReportArguments& arguments) {
  std::vector<PastRun> runs;
  for (const std::string& folder : arguments.folders) runs.push_back({folder, read_run(folder).results});
  sort_by_start(runs);
  const std::filesystem::path out = place_of_page(arguments.out, std::filesystem::path(arguments.folders.back()) / "history.html");
  const std::string page = to_history_page(to_history_json(runs), chart_library());
  write_atomically(out, page);
  fmt::print("{}\nwrote {} ({:.2f} MB)\n", to_text(runs), out.string(), static_cast<double>(page.size()) / 1e6);
  return 0;
}

} // namespace kdacheck
