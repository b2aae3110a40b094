#pragma once
// The files that a run leaves in its output folder.

#include "results.hpp"

#include <filesystem>

namespace kdacheck {

/// Writes report.json, junit.xml and summary.md into an existing folder, each whole or not at all. Throws FileTrouble.
void write_result_files(const Results&, const std::filesystem::path& folder);

/// A run as its folder holds it.
struct RecordedRun {
  Results results;               ///< of report.json, but groups as the cases give them: the log knows more of each
  std::vector<CaseResult> cases; ///< of cases.jsonl
};

/// Reads report.json and cases.jsonl. Throws std::invalid_argument with one sentence, also where the two do not hold the same
/// cases (per kernel x property x regime: as many of each verdict, and the same gravest; per kernel what `departure_from_cases` holds it
/// to), and for a run without a case. Throws BadFile for a folder where a file is due, and the like.
RecordedRun read_run(const std::filesystem::path& folder);

} // namespace kdacheck
