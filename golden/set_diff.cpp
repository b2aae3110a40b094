// What changed between two sets, or two of their entries: diff_golden.

#include "case_difference.hpp"
#include "golden_set.hpp"
#include "set_index.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

namespace kdacheck {
namespace {

namespace fs = std::filesystem;

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
    if (x[i] == y[i] || (std::isnan(x[i]) && std::isnan(y[i]))) continue;
    ++count;
    const double difference = std::fabs(x[i] - y[i]);
    most = std::isnan(difference) ? HUGE_VAL : std::max(most, difference);
  }
  for (const double each : x) size = std::max(size, std::fabs(each));
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

/// A sentence per tensor that two files do not share.
std::vector<std::string> changes_of_tensors(const TensorTable& before, const TensorTable& after) {
  std::vector<std::string> remarks;
  for (const StoredTensor& tensor : before.tensors) {
    const StoredTensor* other = after.find(tensor.name);
    std::string remark = other ? difference(tensor, *other) : tensor.name + " is gone";
    if (!remark.empty()) remarks.push_back(std::move(remark));
  }
  for (const StoredTensor& tensor : after.tensors)
    if (!before.find(tensor.name)) remarks.push_back(tensor.name + " is new");
  return remarks;
}

bool is_folder(const fs::path& place) {
  std::error_code ignored;
  return fs::is_directory(place, ignored);
}

GoldenOutcome diff_entry(const fs::path& before, const fs::path& after) {
  using enum GoldenOutcome::Kind;
  GoldenOutcome outcome{.kind = same, .name = after.filename().string(), .remarks = {}};
  if (is_folder(before) != is_folder(after))
    throw BadFile("one of " + before.string() + " and " + after.string() + " is a file, the other a folder");
  if (is_folder(before)) {
    const auto old_manifest = read_manifest(before), new_manifest = read_manifest(after); // of a schema that is not known nothing is said
    const SafetensorsFile left(before / "tensors.safetensors"), right(after / "tensors.safetensors");
    outcome.remarks = changes_of_tensors(left.table(), right.table());
    for (std::string& remark : changes_of_manifest(old_manifest, new_manifest)) outcome.remarks.push_back(std::move(remark));
  } else {
    const SafetensorsFile left(before), right(after);
    outcome.remarks = changes_of_tensors(left.table(), right.table());
    if (left.table().metadata != right.table().metadata) outcome.remarks.push_back("its metadata differ");
  }
  if (!outcome.remarks.empty()) outcome.kind = changed;
  return outcome;
}

/// The entries of a set that do not wait, by name.
std::map<std::string, fs::path> entries_by_name(const fs::path& set, std::set<std::string>& waiting) {
  std::map<std::string, fs::path> entries;
  for (const fs::path& place : golden_entries(set))
    if (waits_to_be_accepted(place))
      waiting.insert(place.filename().string());
    else
      entries.emplace(place.filename().string(), place);
  return entries;
}

/// The entry that holds just what one does, in a set that has none of its name; or nothing.
std::string name_elsewhere(const fs::path& entry, const std::map<std::string, fs::path>& here,
                           const std::map<std::string, fs::path>& there) {
  for (const auto& [name, place] : there)
    if (!here.contains(name) && is_folder(place) == is_folder(entry) && hash_for_index(place) == hash_for_index(entry)) return name;
  return "";
}

/// A set, not an entry of one.
bool is_set(const fs::path& place) {
  std::error_code ignored;
  return is_folder(place) && !fs::exists(place / "manifest.json", ignored);
}

} // namespace

std::vector<GoldenOutcome> diff_golden(const fs::path& before, const fs::path& after) {
  using enum GoldenOutcome::Kind;
  demand_entries(before), demand_entries(after);
  if (is_set(before) != is_set(after))
    throw BadFile("one of " + before.string() + " and " + after.string() + " is a case, the other a set");
  if (!is_set(before)) return {diff_entry(before, after)};
  std::set<std::string> waiting_names;
  const auto left = entries_by_name(before, waiting_names), right = entries_by_name(after, waiting_names);
  std::map<std::string, GoldenOutcome> outcomes;
  for (const auto& [name, place] : left) {
    const auto other = right.find(name);
    if (other != right.end()) {
      outcomes.emplace(name, diff_entry(place, other->second));
      continue;
    }
    const std::string elsewhere = name_elsewhere(place, left, right);
    outcomes.emplace(name,
                     GoldenOutcome{changed, name, {elsewhere.empty() ? "the case is gone" : "the case is called " + elsewhere + " now"}});
  }
  for (const auto& [name, place] : right) {
    if (left.contains(name)) continue;
    const std::string elsewhere = name_elsewhere(place, right, left);
    outcomes.emplace(name, GoldenOutcome{changed, name, {elsewhere.empty() ? "the case is new" : "the case was called " + elsewhere}});
  }
  for (const std::string& name : waiting_names) outcomes.emplace(name, GoldenOutcome{waiting, name, {}});
  std::vector<GoldenOutcome> listed;
  for (auto& [name, outcome] : outcomes) listed.push_back(std::move(outcome));
  return listed;
}

} // namespace kdacheck
