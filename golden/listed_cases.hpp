#pragma once
// Golden cases that somebody named: those on which a kernel was once wrong.

#include "../properties/cases/recipe.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace kdacheck {

struct ListedCase {
  std::string name; ///< folder
  Format dtype = Format::fp32;
  Recipe recipe;
  std::string why;
};

/// Lines `NAME DTYPE RECIPE`; comment lines above a group of them say why those are kept; a blank line ends a group.
/// Throws BadFile with the line's number.
std::vector<ListedCase> parse_listed_cases(std::string_view text, const std::string& source);

/// Every recipe of properties/found_cases.txt once, in fp32, with the reasons of all its entries: found-FAULT, or found-TENSOR-of-KERNEL.
const std::vector<ListedCase>& listed_found_cases();

} // namespace kdacheck
