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
#include <optional>
#include <string>
#include <string_view>

namespace kdacheck {

std::string to_report_json(const Results&);

/// Reads it back (a Tally's worst without its metrics). Throws std::invalid_argument with one sentence that begins with
/// `source` if the text is not a report of this schema version.
Results results_from_report_json(std::string_view text, std::string_view source);

/// What a report says otherwise than the cases from which it should follow, as a key ("summary", "escalated", "kernels[NAME].worst"), or
/// nothing: summary, escalated and not_supported; of each kernel and module, all of which must be listed, verdict, cases, counts, worst,
/// localised and seconds; of each module the
/// figures of its laws and regimes. Keys that a report of an earlier program lacks are not missed. The text must be a report's.
std::optional<std::string> departure_from_cases(std::string_view report, const Results& cases);

} // namespace kdacheck
