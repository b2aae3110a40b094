#pragma once
// Names and globs on the command line, resolved or refused with the nearest name.

#include "campaign.hpp"

#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace kdacheck {

/// Wrong usage or input: one sentence, exit status 2.
struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Shell-like pattern: `*`, `?`, `[...]`.
bool glob_matches(const std::string& pattern, const std::string& text);

/// The name among `names` with the smallest edit distance to `text` (fewest insertions, deletions, substitutions).
std::string nearest_name(const std::string& text, const std::vector<std::string>& names);

/// Throws UsageError naming the pattern, the kind ("kernel") and the nearest name.
[[noreturn]] void refuse_unknown(const std::string& kind, const std::string& pattern, const std::vector<std::string>& names);

/// Everything with a name that any of the patterns matches, in the order of `all`; every pattern must match something.
/// No patterns: everything.
template <class Named>
std::vector<const Named*> matching(const std::string& kind, const std::vector<std::string>& patterns, std::span<const Named> all) {
  std::vector<std::string> names;
  for (const Named& item : all) names.push_back(item.name);
  for (const std::string& pattern : patterns) {
    bool any = false;
    for (const std::string& item : names) any = any || glob_matches(pattern, item);
    if (!any) refuse_unknown(kind, pattern, names);
  }
  std::vector<const Named*> result;
  for (const Named& item : all) {
    bool chosen = patterns.empty();
    for (const std::string& pattern : patterns) chosen = chosen || glob_matches(pattern, item.name);
    if (chosen) result.push_back(&item);
  }
  return result;
}

} // namespace kdacheck
