#pragma once
// Cases that once were hard: found by `search`, or the simplest on which a planted fault was caught. `verify` runs them
// on every kernel, whatever the seed. They stand in found_cases.txt, one law and recipe a line below the reason.

#include "recipe.hpp"

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kdacheck {

struct FoundCase {
  std::string property; ///< the law to check
  Recipe recipe;
  std::vector<std::string> why; ///< why it is kept and where it came from, a line for each reason
};

/// The name under which results of these cases are counted, beside the names of regimes.
inline constexpr std::string_view found_cases_name = "found-cases";

/// Reads the text: blank lines; lines `# WHY`; lines `PROPERTY RECIPE`, each with `# WHY` lines directly above.
/// Errors: throws std::invalid_argument with the line's number: no reason, an unknown law, a broken token, a case twice.
std::vector<FoundCase> parse_found_cases(std::string_view text);

/// The committed cases.
std::span<const FoundCase> found_cases();

/// Throws BadFile or what `parse_found_cases` does for a file to which `keep_found_case` could not append.
void demand_found_cases(const std::string& file);

/// Appends a case to a file of that form. If the file has the same law and recipe already, the reasons that are new are
/// put above that case, and the result is false. A file that is not there is begun.
/// Errors: as demand_found_cases; FileTrouble if the file cannot be written.
bool keep_found_case(const std::string& file, const FoundCase&);

} // namespace kdacheck
