#include "listed_cases.hpp"

#include "../properties/cases/found_cases.hpp"
#include "../reference/safetensors.hpp"
#include "golden_case.hpp"
#include "set_index.hpp"

#include <algorithm>
#include <cctype>
#include <sstream>
#include <stdexcept>

namespace kdacheck {
namespace {

/// "fault a-b: what it is" and "o of some.kernel: error" begin with what a folder can be called by.
std::string name_from(const std::string& reason) {
  std::string head = reason.substr(0, reason.find(':'));
  if (head.starts_with("fault ")) head.erase(0, 6);
  std::ranges::replace_if(
      head, [](unsigned char c) { return !std::isalnum(c) && c != '.' && c != '-'; }, '-');
  return "found-" + head;
}

void append(std::string& text, const std::string& more, const char* between) {
  if (text.find(more) == std::string::npos) text += (text.empty() ? "" : between) + more;
}

/// As laws of gradients judge it: a recipe that has no loss gets one of every output, or its case would hold no gradient.
Recipe with_loss(Recipe recipe) {
  if (recipe.loss == LossPattern::none) recipe.loss = LossPattern::everywhere;
  return recipe;
}

} // namespace

std::vector<ListedCase> parse_listed_cases(std::string_view text, const std::string& source) {
  std::vector<ListedCase> cases;
  std::istringstream lines{std::string(text)};
  std::string line, why;
  bool comment = false;
  for (std::size_t number = 1; std::getline(lines, line); ++number) {
    const auto reject = [&](const std::string& sentence) { return BadFile(source + ", line " + std::to_string(number) + ": " + sentence); };
    if (line.empty() || line.front() == '#') {
      if (line.empty() || !comment) why.clear();
      comment = !line.empty();
      if (comment) append(why, line.substr(std::min(line.size(), line.find_first_not_of("# "))), " ");
      continue;
    }
    comment = false;
    std::istringstream words(line);
    std::string name, dtype, token, more;
    if (!(words >> name >> dtype >> token) || words >> more) throw reject("expected NAME DTYPE RECIPE");
    const auto format = format_named(dtype);
    if (!format || (*format != Format::fp32 && *format != Format::bf16 && *format != Format::fp16))
      throw reject("'" + dtype + "' is none of fp32, bf16, fp16");
    if (!is_case_name(name)) throw reject("'" + name + "' cannot name a case's folder");
    if (std::ranges::find(cases, name, &ListedCase::name) != cases.end()) throw reject("the name " + name + " stands there twice");
    try {
      cases.push_back({.name = name, .dtype = *format, .recipe = with_loss(from_token(token)), .why = why});
      if (names_a_draw(name, cases.back().recipe, *format)) throw reject("'" + name + "' is what a case is called that its regime draws");
    } catch (const std::invalid_argument& error) {
      throw reject(error.what());
    }
  }
  if (cases.empty()) throw BadFile(source + " lists no case");
  return cases;
}

namespace {

std::vector<ListedCase> every_found_case() {
  std::vector<ListedCase> cases;
  for (const FoundCase& found : found_cases()) {
    const Recipe recipe = with_loss(found.recipe);
    auto listed = std::ranges::find(cases, recipe, &ListedCase::recipe);
    if (listed == cases.end()) {
      std::string name = name_from(found.why.front());
      if (std::ranges::find(cases, name, &ListedCase::name) != cases.end()) { // the recipe's checksum tells two of one name apart
        const std::string token = to_token(recipe);
        name += "." + token.substr(token.rfind(',') + 1);
      }
      listed = cases.insert(cases.end(), {.name = std::move(name), .dtype = Format::fp32, .recipe = recipe, .why = {}});
    }
    for (const std::string& reason : found.why) append(listed->why, reason, "; ");
  }
  return cases;
}

} // namespace

const std::vector<ListedCase>& listed_found_cases() {
  static const std::vector<ListedCase> cases = every_found_case();
  return cases;
}

} // namespace kdacheck
