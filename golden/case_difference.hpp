#pragma once
// What is wrong with a golden case on disk, or not what its recipe gives today.

#include "golden_case.hpp"
#include "set_index.hpp"

#include <nlohmann/json_fwd.hpp>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace kdacheck {

/// Sentences, of the first kind that there is.
struct CaseDifference {
  bool damaged = false; ///< it breaks its own hashes, its index or the schema
  std::vector<std::string> remarks;
};

/// The manifest of the case in `folder`. Throws BadFile if there is none, or it breaks the schema.
nlohmann::json read_manifest(const std::filesystem::path& folder);

/// Reads the case in `folder` and checks it against the index (unless that is null), the schema, its hashes, and `today`, or if that is
/// nothing what the manifest's recipe gives. A bound may be wider than today's by its rounding and not narrower, a radius neither far
/// narrower nor far wider; `why` is what the regime exposes, or what stands with a found case, and free of a case that was listed
/// elsewhere. The folder is named as the case, or waits as NAME.new.
CaseDifference difference_of(const std::filesystem::path& folder, const SetIndex* index, const GoldenCase* today);

} // namespace kdacheck
