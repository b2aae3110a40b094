#pragma once
// A golden set: a folder with index.sha256 (set_index.hpp) and one entry per case: a folder of tensors.safetensors and manifest.json, or
// for a module's case one file (module_golden.hpp). An entry that waits to be accepted stands beside its older self as NAME.new.

#include "golden_case.hpp"

#include "../properties/modules/module_suite.hpp"

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace kdacheck {

/// What became of one entry.
struct GoldenOutcome {
  /// waiting: NAME.new. unfinished: what a run left that was stopped while it wrote; `golden generate` writes over it.
  enum class Kind : std::uint8_t { written, same, changed, damaged, accepted, waiting, unfinished } kind = Kind::same;
  std::string name;
  std::vector<std::string> remarks; ///< a sentence per tensor or file that differs
};

/// Writes a case into `set`, whole or not at all. If one of that name is there and its tensors differ, the new one is written beside it as
/// NAME.new and nothing is overwritten; so if what is there is damaged. What a stopped run left half-written, without a manifest and not in
/// the index, gives way. Throws FileTrouble, and BadFile for a broken index.
GoldenOutcome store_golden(const std::filesystem::path& set, const GoldenCase&, const std::string& commit);

/// The same for the file of a module's case.
GoldenOutcome store_module_golden(const std::filesystem::path& set, const ModuleSuite&, std::string_view regime, std::uint64_t seed);

/// Checks every entry of a set: the index, manifest against its schema, tensors against their sha256, and both against what the
/// recipe gives today; says which are missing, not in the index or renamed. `on_case` is called after each. A candidate NAME.new that is
/// right waits. Throws BadFile if the folder holds no case or no index.
std::vector<GoldenOutcome> verify_golden(const std::filesystem::path& set, const std::function<void(const GoldenOutcome&)>& on_case = {});

/// Compares two entries (or two sets) tensor by tensor: added, removed, of another shape, or with the number of elements
/// that differ and the largest difference. What waits in a set is named, not compared. Throws BadFile, also if one of the two holds no
/// case.
std::vector<GoldenOutcome> diff_golden(const std::filesystem::path& before, const std::filesystem::path& after);

/// Replaces an entry by its NAME.new; stopped in between, it can be called again. Throws BadFile if there is none, or it is not right.
void accept_golden(const std::filesystem::path& set, const std::string& name);

/// The folders of a set that hold a manifest, by name.
std::vector<std::filesystem::path> golden_cases(const std::filesystem::path& set);

/// These and the files of modules' cases, by name.
std::vector<std::filesystem::path> golden_entries(const std::filesystem::path& set);

/// Whether it is written, but not yet accepted.
bool waits_to_be_accepted(const std::filesystem::path& entry);

/// Throws BadFile for a path that is neither an entry nor a folder with one.
void demand_entries(const std::filesystem::path& set_or_entry);

} // namespace kdacheck
