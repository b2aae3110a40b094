#include "selection.hpp"

#include <fnmatch.h>

#include <algorithm>
#include <numeric>

namespace kdacheck {

bool glob_matches(const std::string& pattern, const std::string& text) { return fnmatch(pattern.c_str(), text.c_str(), 0) == 0; }

namespace {

std::size_t edit_distance(const std::string& left, const std::string& right) {
  std::vector<std::size_t> row(right.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= left.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= right.size(); ++j) {
      const std::size_t substituted = diagonal + (left[i - 1] == right[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row.back();
}

} // namespace

std::string nearest_name(const std::string& text, const std::vector<std::string>& names) {
  const auto nearest = std::min_element(names.begin(), names.end(),
                                        [&](const auto& x, const auto& y) { return edit_distance(text, x) < edit_distance(text, y); });
  return nearest == names.end() ? "" : *nearest;
}

void refuse_unknown(const std::string& kind, const std::string& pattern, const std::vector<std::string>& names) {
  const std::string nearest = nearest_name(pattern, names);
  const bool of_modules = kind == "law" || kind.ends_with(" of a module"); // `list modules` shows what each has
  throw UsageError("no " + kind + " is named '" + pattern + "'" + (nearest.empty() ? std::string() : "; the nearest is '" + nearest + "'") +
                   " (./kdacheck list " +
                   (of_modules           ? "modules"
                    : kind == "property" ? "properties"
                                         : kind + "s") +
                   " shows all)");
}

} // namespace kdacheck
