#pragma once
// summary.md: what a continuous-integration page shows of a run.

#include "results.hpp"

#include <string>

namespace kdacheck {

std::string to_summary_markdown(const Results&);

} // namespace kdacheck
