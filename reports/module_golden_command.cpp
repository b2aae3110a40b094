#include "commands.hpp"

#include "../golden/module_golden.hpp"
#include "../reference/atomic_file.hpp"
#include "../reference/safetensors.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace kdacheck {

namespace {

/// Whether the file holds what is drawn and computed today.
bool up_to_date(const std::filesystem::path& path) {
  try {
    return module_golden_differences(path).empty();
  } catch (const BadFile&) {
    return false;
  }
}

} // namespace

int golden_generate_modules_command(const std::string& folder) {
  make_folder(folder);
  std::size_t changed = 0;
  for (const ModuleSuite& suite : module_suites())
    for (const ModuleRegime& regime : suite.regimes) {
      if (!suite.draw(regime.name, 1).oracle.evaluate) continue;
      const std::filesystem::path path = module_golden_path(suite, regime.name, 1, folder);
      const char* word = "written";
      if (!std::filesystem::exists(path)) {
        write_module_golden(suite, regime.name, 1, path);
      } else if (up_to_date(path)) {
        word = "same";
      } else {
        write_module_golden(suite, regime.name, 1, path.string() + ".new");
        word = "CHANGED", ++changed;
      }
      fmt::print("{:<10} {}\n", word, path.string());
    }
  if (changed) fmt::print("{} changed: today's were written beside them as NAME.new; to accept one, move it over the old one\n", changed);
  return changed ? 1 : 0;
}

int golden_verify_modules_command(const std::string& folder) {
  if (!std::filesystem::is_directory(folder)) throw BadFile(folder + " is no folder");
  std::size_t files = 0, changed = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".safetensors") continue;
    ++files;
    const std::vector<std::string> differences = module_golden_differences(entry.path());
    changed += differences.empty() ? 0 : 1;
    for (const std::string& difference : differences) fmt::print("{}: {}\n", entry.path().filename().string(), difference);
  }
  fmt::print("{} files, {} changed\n", files, changed);
  return files == 0 ? 5 : changed == 0 ? 0 : 1;
}

} // namespace kdacheck
