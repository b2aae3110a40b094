#pragma once
// Detection limits as a table on the console and as a Markdown page.

#include "../properties/detection_limits.hpp"
#include "context.hpp"

#include <span>
#include <string>

namespace kdacheck {

/// One line per contract and tensor: -log2 of the limit in every regime, and the best of them.
std::string limits_table(std::span<const Limit>);

/// The same for reports/, with where, when and by which command it was measured.
std::string limits_markdown(std::span<const Limit>, const Context&, const std::string& command);

} // namespace kdacheck
