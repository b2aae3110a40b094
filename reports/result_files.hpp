#pragma once
// The files that a run leaves in its output folder.

#include "results.hpp"

#include <filesystem>

namespace kdacheck {

/// Writes report.json, junit.xml and summary.md into an existing folder, each whole or not at all. Throws FileTrouble.
void write_result_files(const Results&, const std::filesystem::path& folder);

/// Reads a folder's report.json. Throws std::invalid_argument with one sentence.
Results read_results(const std::filesystem::path& folder);

} // namespace kdacheck
