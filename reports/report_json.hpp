#pragma once
// report.json: the result of a run for other programs.
//
// schema_version 1; complete (false: stopped early); wall_seconds; context; summary{cases, one count per verdict};
// kernels[]{name, contract, verdict, cases, one count per verdict in counts{}, seconds, worst{bound_util, output, regime,
// property, replay, ...}}; modules[]{name, summary, source, verdict, cases, counts{}, seconds, worst{}, laws[]{name, about, cases,
// passed, failed, largest_bound_util}, regimes[] likewise, figures[]{regime, and what module_figures.hpp says by name}}; groups[] the same
// per kernel x property x regime, in short; not_supported[]{kernel, reason, cases}. A group leaves out counts where all cases have its
// verdict, counts of 0, empty texts, and its worst case's property and regime; `recipe`, an index into recipes[], stands for the `replay`
// of a case that did not fail, which is KERNEL:PROPERTY:RECIPE. `worst` is null for a kernel without a case. Infinite numbers:
// json_numbers.hpp.

#include "results.hpp"

#include <filesystem>
#include <string>
#include <string_view>

namespace kdacheck {

std::string to_report_json(const Results&);

/// Reads it back (a Tally's worst without its metrics). Throws std::invalid_argument with one sentence that begins with
/// `source` if the text is not a report of this schema version.
Results results_from_report_json(std::string_view text, std::string_view source);

} // namespace kdacheck
