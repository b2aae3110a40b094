#pragma once
// index.sha256 of a golden set: the sha256 of every case's manifest, which holds those of its tensors. `sha256sum -c index.sha256`
// reads it too.

#include <filesystem>
#include <map>
#include <string>

namespace kdacheck {

/// sha256 by name of case.
using SetIndex = std::map<std::string, std::string>;

/// Throws BadFile for a set without an index, and for a line that is no `SHA256  CASE/manifest.json`.
SetIndex read_index(const std::filesystem::path& set);

/// What a set's index holds, or nothing where there is none yet. Throws BadFile for one that cannot be read.
SetIndex index_so_far(const std::filesystem::path& set);

/// Throws FileTrouble.
void write_index(const std::filesystem::path& set, const SetIndex&);

/// sha256 of CASE/manifest.json. Throws BadFile if it cannot be read.
std::string manifest_hash(const std::filesystem::path& case_folder);

} // namespace kdacheck
