#include "compare.hpp"
#include "result_files.hpp"

#include <cstdio>

namespace kdacheck {

int compare_command(const std::string& before, const std::string& after) {
  const Comparison comparison = compare(read_results(before), read_results(after));
  std::fputs(to_text(comparison).c_str(), stdout);
  return exit_status(comparison);
}

} // namespace kdacheck
