#pragma once
// The table that verify prints: one line per kernel, failures with their place and replay command, and what was skipped.

#include "results.hpp"

#include <string>

namespace kdacheck {

struct TableOptions {
  bool colour = false;
  std::size_t width = 118;         ///< columns; contracts and regimes are cut to fit
  std::size_t failures_shown = 12; ///< the rest is counted
  std::size_t reasons_shown = 8;
};

std::string console_table(const Results&, const TableOptions& = {});

/// Colour only on a terminal and without NO_COLOR; its width between 100 and 160, or 118 where there is none.
TableOptions table_options_for(int file_descriptor);

} // namespace kdacheck
