#pragma once
// Regimes that walk through sizes: a campaign draws all rounds of the walk, in the quick tier too.

#include <string_view>

namespace kdacheck {

/// How many first rounds of a regime a campaign of any tier draws at least, each with sizes of its own that no seed leaves out; 0 for
/// a regime that walks through nothing.
int walked_rounds(std::string_view regime);

} // namespace kdacheck
