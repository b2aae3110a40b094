#include "../reference/atomic_file.hpp"
#include "../reference/named_file.hpp"
#include "commands.hpp"
#include "figures.hpp"
#include "page.hpp"
#include "page_data.hpp"
#include "result_files.hpp"
#include "series.hpp"

#include <fmt/format.h>

#include <cstdio>
#include <filesystem>
#include <stdexcept>

namespace kdacheck {
namespace {

/// The JSON that another command left: the file named, or FOLDER/NAME, or null if neither was asked for or is there.
nlohmann::ordered_json neighbour(const std::filesystem::path& folder, const char* name, const std::string& named, const char* key) {
  const std::filesystem::path path = named.empty() ? folder / name : std::filesystem::path(named);
  if (named.empty() && !std::filesystem::exists(path)) return nullptr;
  auto json = nlohmann::ordered_json::parse(text_of_file(path), nullptr, false);
  if (!json.is_object() || !json.contains("schema_version") || !json.contains(key) || !json[key].is_array())
    throw std::invalid_argument(path.string() + " is not a " + name + " of this suite");
  if (json["schema_version"] != 1)
    throw std::invalid_argument(path.string() + " has schema version " + json["schema_version"].dump() + "; this program reads version 1");
  return json;
}

/// What lies beside a run, under the keys that the page reads.
nlohmann::ordered_json neighbours_of(const ReportArguments& arguments, const std::filesystem::path& folder) {
  nlohmann::ordered_json found{{"series", read_series(folder)}, {"bench", neighbour(folder, "bench.json", arguments.bench, "rows")}};
  const auto power = neighbour(folder, "power.json", arguments.power, "faults");
  found["limits"] = power.is_object() && power.contains("limits") ? power["limits"] : nlohmann::ordered_json();
  return found;
}

} // namespace

int report_command(const ReportArguments& arguments) {
  if (arguments.folders.size() != 1) throw std::invalid_argument("report takes one result folder; --history shows the trend over several");
  const std::filesystem::path folder = arguments.folders.front();
  if (!arguments.figures.empty()) demand_room_for_folder(arguments.figures);
  const auto [results, cases] = read_run(folder);
  const std::filesystem::path out = place_of_page(arguments.out, folder / "report.html");
  const std::string data = to_page_json(results, cases, neighbours_of(arguments, folder));
  const std::string page = to_page(data, chart_library());
  if (!arguments.figures.empty()) draw_figures(data, arguments.figures);
  write_atomically(out, page);
  fmt::print("wrote {} ({:.2f} MB)\n", out.string(), static_cast<double>(page.size()) / 1e6);
  return 0;
}

} // namespace kdacheck
