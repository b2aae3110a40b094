#include "golden_set.hpp"

#include "../reference/atomic_file.hpp"
#include "../reference/sha256.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <set>

namespace kdacheck {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

json manifest_in(const fs::path& folder) {
  const fs::path path = folder / "manifest.json";
  std::ifstream file(path);
  if (!file) throw BadFile(path.string() + " cannot be read");
  json manifest = json::parse(file, nullptr, false);
  if (manifest.is_discarded()) throw BadFile(path.string() + " is no JSON");
  if (auto breach = manifest_breach(manifest)) throw BadFile(path.string() + ": " + *breach);
  return manifest;
}

std::map<std::string, std::string> hashes_in(const json& manifest) {
  std::map<std::string, std::string> hashes;
  for (const json& tensor : manifest["tensors"]) hashes[tensor["name"].get<std::string>()] = tensor["sha256"].get<std::string>();
  return hashes;
}

std::map<std::string, std::string> hashes_of(const GoldenCase& golden) {
  std::map<std::string, std::string> hashes;
  for (const GoldenTensor& tensor : golden.tensors) hashes[tensor.tensor.name] = sha256_of(tensor.tensor.bytes);
  return hashes;
}

/// A sentence per name that the two sides do not share with the same hash.
std::vector<std::string> differences(const std::map<std::string, std::string>& before, const std::map<std::string, std::string>& after) {
  std::vector<std::string> remarks;
  for (const auto& [label, hash] : before)
    if (const auto found = after.find(label); found == after.end())
      remarks.push_back(label + " is gone");
    else if (found->second != hash)
      remarks.push_back(label + " has changed");
  for (const auto& [label, hash] : after)
    if (!before.contains(label)) remarks.push_back(label + " is new");
  return remarks;
}

void write_case(const fs::path& folder, const GoldenCase& golden, const std::string& commit) {
  make_folder(folder);
  std::vector<OwnedTensor> tensors;
  for (const GoldenTensor& tensor : golden.tensors) tensors.push_back(tensor.tensor);
  write_tensors(folder / "tensors.safetensors", tensors, golden.metadata);
  write_atomically(folder / "manifest.json", manifest_of(golden, commit).dump(1) + "\n");
}

GoldenOutcome verify_case(const fs::path& folder) {
  GoldenOutcome outcome{.kind = GoldenOutcome::Kind::damaged, .name = folder.filename().string(), .remarks = {}};
  try {
    const json manifest = manifest_in(folder);
    const SafetensorsFile file(folder / manifest["file"].get<std::string>());
    std::map<std::string, std::string> stored;
    for (const StoredTensor& tensor : file.table().tensors) stored[tensor.name] = sha256_of(tensor.bytes);
    const auto promised = hashes_in(manifest);
    outcome.remarks = differences(promised, stored);
    for (std::string& remark : outcome.remarks) remark += ": the file does not hold what the sha256 in its manifest promises";
    if (!outcome.remarks.empty()) return outcome;
    const GoldenCase blueprint = blueprint_of(manifest, folder.string());
    outcome.remarks = differences(promised, hashes_of(golden_case(blueprint.name, blueprint.recipe, blueprint.contents)));
    outcome.kind = outcome.remarks.empty() ? GoldenOutcome::Kind::same : GoldenOutcome::Kind::changed;
  } catch (const BadFile& error) {
    outcome.remarks = {error.what()};
  } catch (const std::invalid_argument& error) {
    outcome.remarks = {error.what()};
  }
  return outcome;
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

GoldenOutcome diff_case(const fs::path& before, const fs::path& after) {
  const SafetensorsFile left(before / "tensors.safetensors"), right(after / "tensors.safetensors");
  GoldenOutcome outcome{.kind = GoldenOutcome::Kind::same, .name = after.filename().string(), .remarks = {}};
  for (const StoredTensor& tensor : left.table().tensors) {
    const StoredTensor* other = right.table().find(tensor.name);
    const std::string remark = other ? difference(tensor, *other) : tensor.name + " is gone";
    if (!remark.empty()) outcome.remarks.push_back(remark);
  }
  for (const StoredTensor& tensor : right.table().tensors)
    if (!left.table().find(tensor.name)) outcome.remarks.push_back(tensor.name + " is new");
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
  GoldenOutcome outcome{.kind = GoldenOutcome::Kind::written, .name = golden.name, .remarks = {}};
  if (!fs::exists(folder)) {
    write_case(folder, golden, commit);
    return outcome;
  }
  try {
    outcome.remarks = differences(hashes_in(manifest_in(folder)), hashes_of(golden));
  } catch (const BadFile& error) {
    outcome.remarks = {error.what()};
  }
  outcome.kind = outcome.remarks.empty() ? GoldenOutcome::Kind::same : GoldenOutcome::Kind::changed;
  if (!outcome.remarks.empty()) write_case(set / (golden.name + ".new"), golden, commit);
  return outcome;
}

std::vector<GoldenOutcome> verify_golden(const fs::path& set, const std::function<void(const GoldenOutcome&)>& on_case) {
  const auto cases = golden_cases(set);
  if (cases.empty()) throw BadFile(set.string() + " holds no golden case");
  std::vector<GoldenOutcome> outcomes;
  for (const fs::path& folder : cases) {
    outcomes.push_back(verify_case(folder));
    if (on_case) on_case(outcomes.back());
  }
  return outcomes;
}

std::vector<GoldenOutcome> diff_golden(const fs::path& before, const fs::path& after) {
  if (fs::exists(before / "manifest.json") && fs::exists(after / "manifest.json")) return {diff_case(before, after)};
  std::set<std::string> names;
  for (const fs::path& folder : golden_cases(before)) names.insert(folder.filename().string());
  for (const fs::path& folder : golden_cases(after)) names.insert(folder.filename().string());
  if (names.empty()) throw BadFile("neither " + before.string() + " nor " + after.string() + " holds a golden case");
  std::vector<GoldenOutcome> outcomes;
  for (const std::string& label : names) {
    const bool left = fs::exists(before / label / "manifest.json"), right = fs::exists(after / label / "manifest.json");
    if (left && right)
      outcomes.push_back(diff_case(before / label, after / label));
    else
      outcomes.push_back({GoldenOutcome::Kind::changed, label, {left ? "the case is gone" : "the case is new"}});
  }
  return outcomes;
}

void accept_golden(const fs::path& set, const std::string& label) {
  const fs::path fresh = set / (label + ".new"), folder = set / label, old = set / (label + ".old");
  if (!fs::exists(fresh / "manifest.json")) throw BadFile("there is no " + fresh.string() + " to accept");
  std::error_code error;
  fs::remove_all(old, error);
  if (fs::exists(folder)) fs::rename(folder, old, error);
  if (!error) fs::rename(fresh, folder, error);
  if (error) throw FileTrouble("cannot replace " + folder.string() + ": " + error.message());
  // The manifest still names the case, not the folder it waited in.
  fs::remove_all(old, error);
}

} // namespace kdacheck
