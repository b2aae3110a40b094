#include "golden_set.hpp"

#include "../reference/atomic_file.hpp"
#include "case_difference.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <set>

namespace kdacheck {
namespace {

namespace fs = std::filesystem;

void write_case(const fs::path& folder, const GoldenCase& golden, const std::string& commit) {
  make_folder(folder);
  std::vector<OwnedTensor> tensors;
  for (const GoldenTensor& tensor : golden.tensors) tensors.push_back(tensor.tensor);
  write_tensors(folder / "tensors.safetensors", tensors, golden.metadata);
  write_atomically(folder / "manifest.json", manifest_text(manifest_of(golden, commit)));
}

/// Writes a case that waits to be accepted; a sentence if it takes the place of another that waited.
std::string write_candidate(const fs::path& folder, const GoldenCase& golden, const std::string& commit) {
  const bool waited = fs::exists(folder / "manifest.json");
  if (!waited && fs::exists(folder) && !fs::is_empty(folder)) throw BadFile(folder.string() + " is in the way: it is no golden case");
  const std::string before = waited ? manifest_hash(folder) : "";
  write_case(folder, golden, commit);
  return waited && manifest_hash(folder) != before ? folder.filename().string() + " held another candidate: replaced" : "";
}

/// Written, but not yet accepted.
bool waits(const fs::path& folder) { return folder.extension() == ".new"; }

void put_into_index(const fs::path& set, SetIndex index, const std::string& label) {
  index[label] = manifest_hash(set / label);
  write_index(set, index);
}

GoldenOutcome outcome_of(const fs::path& folder, CaseDifference difference) {
  using enum GoldenOutcome::Kind;
  return {difference.damaged           ? damaged
          : difference.remarks.empty() ? same
                                       : changed,
          folder.filename().string(), std::move(difference.remarks)};
}

void demand_cases(const fs::path& set) {
  if (!fs::exists(set)) throw BadFile("there is no folder " + set.string());
  if (!fs::is_directory(set)) throw BadFile(set.string() + " is a file, no folder of golden cases");
  if (!fs::exists(set / "manifest.json") && golden_cases(set).empty())
    throw BadFile(set.string() + " holds no golden case: no folder in it has a manifest.json, as `golden generate` writes it");
}

std::string difference(const StoredTensor& before, const StoredTensor& after) {
  if (before.type != after.type) return fmt::format("{}: {} became {}", before.name, name(before.type), name(after.type));
  if (before.shape != after.shape)
    return fmt::format("{}: shape [{}] became [{}]", before.name, fmt::join(before.shape, ","), fmt::join(after.shape, ","));
  if (std::ranges::equal(before.bytes, after.bytes)) return "";
  if (!format_of(before.type)) return before.name + ": integers differ";
  const auto x = doubles(before), y = doubles(after);
  std::size_t count = 0;
  double most = 0, size = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    count += x[i] == y[i] ? 0 : 1;
    most = std::max(most, std::fabs(x[i] - y[i]));
    size = std::max(size, std::fabs(x[i]));
  }
  return fmt::format("{}: {} of {} elements differ, by {:.3g} at most (largest element {:.3g})", before.name, count, x.size(), most, size);
}

/// What manifests say beside the tensors, and the radii that both promise; not where they come from.
std::vector<std::string> changes_of_manifest(const nlohmann::json& before, const nlohmann::json& after) {
  std::vector<std::string> remarks;
  for (const char* key : {"case", "regime", "why", "token", "options", "formats", "contents", "oracle", "bounds", "layout"})
    if (before[key] != after[key]) remarks.push_back(std::string("manifest.json: '") + key + "' differs");
  for (const auto& tensor : before["tensors"])
    for (const auto& other : after["tensors"])
      if (tensor["name"] == other["name"] && tensor["radius"] != other["radius"])
        remarks.push_back(fmt::format("{}: radius {:.3g} became {:.3g}", tensor["name"].get<std::string>(), tensor["radius"].get<double>(),
                                      other["radius"].get<double>()));
  return remarks;
}

GoldenOutcome diff_case(const fs::path& before, const fs::path& after) {
  const auto old_manifest = read_manifest(before), new_manifest = read_manifest(after); // of a schema that is not known nothing is said
  const SafetensorsFile left(before / "tensors.safetensors"), right(after / "tensors.safetensors");
  GoldenOutcome outcome{.kind = GoldenOutcome::Kind::same, .name = after.filename().string(), .remarks = {}};
  for (const StoredTensor& tensor : left.table().tensors) {
    const StoredTensor* other = right.table().find(tensor.name);
    const std::string remark = other ? difference(tensor, *other) : tensor.name + " is gone";
    if (!remark.empty()) outcome.remarks.push_back(remark);
  }
  for (const StoredTensor& tensor : right.table().tensors)
    if (!left.table().find(tensor.name)) outcome.remarks.push_back(tensor.name + " is new");
  for (std::string& remark : changes_of_manifest(old_manifest, new_manifest)) outcome.remarks.push_back(std::move(remark));
  if (!outcome.remarks.empty()) outcome.kind = GoldenOutcome::Kind::changed;
  return outcome;
}

} // namespace

std::vector<fs::path> golden_cases(const fs::path& set) {
  std::vector<fs::path> cases;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(set, error))
    if (fs::exists(entry.path() / "manifest.json")) cases.push_back(entry.path());
  std::sort(cases.begin(), cases.end());
  return cases;
}

GoldenOutcome store_golden(const fs::path& set, const GoldenCase& golden, const std::string& commit) {
  const fs::path folder = set / golden.name;
  const SetIndex index = index_so_far(set);
  if (!fs::exists(folder)) {
    write_case(folder, golden, commit);
    put_into_index(set, index, golden.name);
    return {.kind = GoldenOutcome::Kind::written, .name = golden.name, .remarks = {}};
  }
  GoldenOutcome outcome = outcome_of(folder, difference_of(folder, index.contains(golden.name) ? &index : nullptr, &golden));
  if (outcome.kind != GoldenOutcome::Kind::same) {
    if (auto remark = write_candidate(set / (golden.name + ".new"), golden, commit); !remark.empty())
      outcome.remarks.push_back(std::move(remark));
  } else if (!index.contains(golden.name)) {
    put_into_index(set, index, golden.name);
  }
  return outcome;
}

std::vector<GoldenOutcome> verify_golden(const fs::path& set, const std::function<void(const GoldenOutcome&)>& on_case) {
  demand_cases(set);
  const auto cases = golden_cases(set);
  if (cases.empty()) throw BadFile(set.string() + " is one golden case: verify its set, which has the index");
  const SetIndex index = read_index(set);
  std::vector<GoldenOutcome> outcomes;
  const auto keep = [&](GoldenOutcome outcome) {
    outcomes.push_back(std::move(outcome));
    if (on_case) on_case(outcomes.back());
  };
  for (const fs::path& folder : cases) {
    GoldenOutcome outcome = outcome_of(folder, difference_of(folder, waits(folder) ? nullptr : &index, nullptr));
    if (waits(folder) && outcome.kind == GoldenOutcome::Kind::same) outcome.kind = GoldenOutcome::Kind::waiting;
    keep(std::move(outcome));
  }
  for (const auto& [label, hash] : index)
    if (!fs::exists(set / label / "manifest.json"))
      keep({GoldenOutcome::Kind::damaged, label, {"index.sha256 names it, but there is no " + label + "/manifest.json"}});
  return outcomes;
}

std::vector<GoldenOutcome> diff_golden(const fs::path& before, const fs::path& after) {
  demand_cases(before), demand_cases(after);
  if (fs::exists(before / "manifest.json") != fs::exists(after / "manifest.json"))
    throw BadFile("one of " + before.string() + " and " + after.string() + " is a case, the other a set");
  if (fs::exists(before / "manifest.json")) return {diff_case(before, after)};
  std::set<std::string> names;
  for (const fs::path& folder : golden_cases(before)) names.insert(folder.filename().string());
  for (const fs::path& folder : golden_cases(after)) names.insert(folder.filename().string());
  std::vector<GoldenOutcome> outcomes;
  for (const std::string& label : names) {
    if (waits(label)) {
      outcomes.push_back({GoldenOutcome::Kind::waiting, label, {}});
      continue;
    }
    const bool left = fs::exists(before / label / "manifest.json"), right = fs::exists(after / label / "manifest.json");
    if (left && right)
      outcomes.push_back(diff_case(before / label, after / label));
    else
      outcomes.push_back({GoldenOutcome::Kind::changed, label, {left ? "the case is gone" : "the case is new"}});
  }
  return outcomes;
}

void demand_room(const fs::path& set) {
  for (fs::path part = fs::absolute(set); part.has_relative_path(); part = part.parent_path())
    if (std::error_code error; fs::exists(part, error) && !fs::is_directory(part, error))
      throw BadFile(set.string() + " cannot be a folder of golden cases: " + part.string() + " is a file");
}

void accept_golden(const fs::path& set, const std::string& label) {
  const fs::path fresh = set / (label + ".new"), folder = set / label, old = set / (label + ".old");
  if (!fs::exists(fresh / "manifest.json")) throw BadFile("there is no " + fresh.string() + " to accept");
  if (const CaseDifference difference = difference_of(fresh, nullptr, nullptr); !difference.remarks.empty())
    throw BadFile(fresh.string() + " cannot be accepted: " + difference.remarks.front());
  const SetIndex index = index_so_far(set); // before anything is moved
  std::error_code error;
  fs::remove_all(old, error);
  if (fs::exists(folder)) fs::rename(folder, old, error);
  if (!error) fs::rename(fresh, folder, error);
  if (error) throw FileTrouble("cannot replace " + folder.string() + ": " + error.message());
  // The manifest still names the case, not the folder it waited in.
  fs::remove_all(old, error);
  put_into_index(set, index, label);
}

} // namespace kdacheck
