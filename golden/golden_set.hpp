#pragma once
// A golden set: a folder with one folder per case, each of tensors.safetensors and manifest.json, and index.sha256 (set_index.hpp).

#include "golden_case.hpp"

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace kdacheck {

/// What became of one case.
struct GoldenOutcome {
  enum class Kind : std::uint8_t { written, same, changed, damaged, accepted, waiting } kind = Kind::same; ///< waiting: NAME.new
  std::string name;
  std::vector<std::string> remarks; ///< a sentence per tensor or file that differs
};

/// Writes a case into `set`. If one of that name is there and its tensors differ, the new one is written beside it as
/// NAME.new and nothing is overwritten; so if what is there is damaged. Throws FileTrouble, and BadFile for a broken index.
GoldenOutcome store_golden(const std::filesystem::path& set, const GoldenCase&, const std::string& commit);

/// Checks every case of a set: the index, manifest against its schema, tensors against their sha256, and both against what the
/// recipe gives today. `on_case` is called after each. A candidate NAME.new that is right waits. Throws BadFile if the folder holds no case
/// or no index.
std::vector<GoldenOutcome> verify_golden(const std::filesystem::path& set, const std::function<void(const GoldenOutcome&)>& on_case = {});

/// Compares two cases (or two sets) tensor by tensor: added, removed, of another shape, or with the number of elements
/// that differ and the largest difference. What waits in a set is named, not compared. Throws BadFile, also if one of the two holds no
/// case.
std::vector<GoldenOutcome> diff_golden(const std::filesystem::path& before, const std::filesystem::path& after);

/// Throws BadFile if a set cannot stand there because a file does.
void demand_room(const std::filesystem::path& set);

/// Replaces a case by its NAME.new. Throws BadFile if there is none.
void accept_golden(const std::filesystem::path& set, const std::string& name);

/// The folders of a set that hold a manifest, by name.
std::vector<std::filesystem::path> golden_cases(const std::filesystem::path& set);

} // namespace kdacheck
