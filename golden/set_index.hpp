#pragma once
// index.sha256 of a golden set: for each case the sha256 of its manifest, which holds those of its tensors; for each file of a module's
// case its own. `sha256sum -c index.sha256` reads it too.

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace kdacheck {

/// sha256 by name: of a case's folder, or of a module's file, which ends in .safetensors.
using SetIndex = std::map<std::string, std::string>;

/// Whether a name in a set is that of a module's file; else it is that of a case's folder.
bool names_a_file(std::string_view name);

/// Whether a case may be called so: letters, digits, '-', '_' and '.', not first, 200 at most, and no ending that a set gives a meaning to:
/// .new, .old, .partial, .safetensors.
bool is_case_name(std::string_view name);

/// Throws BadFile for a set without an index, and for a line that is neither `SHA256  CASE/manifest.json` nor `SHA256  FILE.safetensors`.
SetIndex read_index(const std::filesystem::path& set);

/// What a set's index holds, or nothing where there is none yet. Throws BadFile for one that cannot be read.
SetIndex index_so_far(const std::filesystem::path& set);

/// Throws FileTrouble.
void write_index(const std::filesystem::path& set, const SetIndex& index);

/// sha256 of CASE/manifest.json, or of a module's file. Throws BadFile if it cannot be read.
std::string hash_for_index(const std::filesystem::path& place);

/// One sentence if the index does not hold the place's sha256 under its name, or nothing. Throws as `hash_for_index`.
std::optional<std::string> breach_of_index(const std::filesystem::path& place, const SetIndex& index);

} // namespace kdacheck
