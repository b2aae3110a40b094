#include "found_cases.hpp"

#include "../../reference/atomic_file.hpp"
#include "../../reference/named_file.hpp"
#include "../property.hpp"
#include "found_cases_text.hpp"

#include <algorithm>
#include <filesystem>
#include <stdexcept>

namespace kdacheck {
namespace {

[[noreturn]] void reject(std::size_t line, const std::string& why) {
  throw std::invalid_argument("found cases, line " + std::to_string(line) + ": " + why);
}

bool is_law(std::string_view name) {
  return std::ranges::any_of(properties(), [&](const Property& property) { return property.name == name; });
}

std::string text_so_far(const std::string& file) { return std::filesystem::is_regular_file(file) ? text_of_file(file) : ""; }

} // namespace

std::vector<FoundCase> parse_found_cases(std::string_view text) {
  std::vector<FoundCase> result;
  std::vector<std::string> why;
  for (std::size_t number = 1; !text.empty(); ++number) {
    const auto end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (line.empty()) {
      why.clear();
      continue;
    }
    if (line.starts_with("# ")) {
      why.emplace_back(line.substr(2));
      continue;
    }
    const auto space = line.find(' ');
    if (space == std::string_view::npos) reject(number, "expected PROPERTY RECIPE");
    FoundCase found{.property = std::string(line.substr(0, space)), .recipe = {}, .why = why};
    if (why.empty()) reject(number, "the line above does not say why the case is kept");
    if (!is_law(found.property)) reject(number, "no law is named '" + found.property + "'");
    try {
      found.recipe = from_token(line.substr(space + 1));
    } catch (const std::invalid_argument& error) {
      reject(number, error.what());
    }
    for (const FoundCase& earlier : result)
      if (earlier.property == found.property && earlier.recipe == found.recipe) reject(number, "this case stands there twice");
    result.push_back(std::move(found));
    why.clear();
  }
  return result;
}

std::span<const FoundCase> found_cases() {
  static const std::vector<FoundCase> all = parse_found_cases(found_cases_text);
  return all;
}

void demand_found_cases(const std::string& file) {
  demand_room_for_file(file);
  parse_found_cases(text_so_far(file));
}

bool keep_found_case(const std::string& file, const FoundCase& found) {
  std::string text = text_so_far(file);
  const auto earlier = parse_found_cases(text);
  const auto same =
      std::ranges::find_if(earlier, [&](const FoundCase& each) { return each.property == found.property && each.recipe == found.recipe; });
  std::string reasons;
  for (std::string why : found.why) {
    std::ranges::replace(why, '\n', ' ');
    if (same == earlier.end() || std::ranges::find(same->why, why) == same->why.end()) reasons += "# " + why + "\n";
  }
  if (found.why.empty()) throw std::invalid_argument("a found case needs a reason");
  const std::string line = found.property + " " + to_token(found.recipe) + "\n";
  if (!text.empty() && !text.ends_with('\n')) text += '\n';
  if (same == earlier.end())
    text += "\n" + reasons + line;
  else
    text.insert(text.find(line), reasons);
  write_atomically(file, text);
  return same == earlier.end();
}

} // namespace kdacheck
