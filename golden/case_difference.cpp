#include "case_difference.hpp"

#include "../reference/sha256.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <fstream>
#include <limits>
#include <map>

namespace kdacheck {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

std::vector<std::string> against_index(const fs::path& folder, const SetIndex& index) {
  const auto promised = index.find(folder.filename().string());
  if (promised == index.end()) return {"index.sha256 does not name its manifest.json"};
  if (promised->second != manifest_hash(folder)) return {"manifest.json is not the one of which index.sha256 holds the sha256"};
  return {};
}

std::vector<std::string> against_hashes(const json& manifest, const TensorTable& table) {
  std::vector<std::string> remarks;
  const std::string broken = ": the file does not hold what the sha256 in its manifest promises";
  for (const json& tensor : manifest["tensors"]) {
    const auto label = tensor["name"].get<std::string>();
    const StoredTensor* stored = table.find(label);
    if (!stored)
      remarks.push_back(label + " is gone" + broken);
    else if (sha256_of(stored->bytes) != tensor["sha256"] || stored->shape != tensor["shape"].get<std::vector<std::int64_t>>() ||
             name(stored->type) != tensor["dtype"].get<std::string>())
      remarks.push_back(label + " has changed" + broken);
  }
  for (const StoredTensor& tensor : table.tensors)
    if (std::ranges::none_of(manifest["tensors"], [&](const json& each) { return each["name"] == tensor.name; }))
      remarks.push_back(tensor.name + " is new" + broken);
  if (json(table.metadata) != manifest["options"])
    remarks.push_back("metadata of tensors.safetensors are not the 'options' of its manifest");
  return remarks;
}

/// -1, not certified, is as wide as can be.
double width(double radius) { return radius < 0 ? std::numeric_limits<double>::infinity() : radius; }

/// The same numbers, certified by another version of the oracle, have other radii: of 1,152 tensors that two versions of the starter
/// set share, 0.88 to 2.04 times the earlier.
constexpr double radii_move_by = 8;

bool still_bound(const StoredTensor& stored, const OwnedTensor& today) {
  if (stored.shape != today.shape || stored.type != today.type) return false;
  const auto kept = doubles(stored), due = doubles({today.name, today.type, today.shape, today.bytes});
  return std::ranges::equal(kept, due, [](double x, double y) { return y <= x; });
}

/// A sentence per tensor that the stored case and today's do not share.
std::vector<std::string> against_today(const json& manifest, const TensorTable& table, const GoldenCase& today) {
  std::vector<std::string> remarks;
  std::map<std::string, double> radius;
  for (const json& tensor : manifest["tensors"]) radius[tensor["name"].get<std::string>()] = tensor["radius"].get<double>();
  for (const GoldenTensor& tensor : today.tensors) {
    const std::string& label = tensor.tensor.name;
    const StoredTensor* stored = table.find(label);
    if (!stored)
      remarks.push_back(label + " is new");
    else if (holds_bounds(label)) {
      if (!still_bound(*stored, tensor.tensor)) remarks.push_back(label + " is narrower than what can be proved today");
    } else if (stored->shape != tensor.tensor.shape || stored->type != tensor.tensor.type ||
               !std::ranges::equal(stored->bytes, tensor.tensor.bytes))
      remarks.push_back(label + " has changed");
    else if (!(width(tensor.radius) <= radii_move_by * width(radius[label]) &&
               width(radius[label]) <= radii_move_by * width(tensor.radius)))
      remarks.push_back(fmt::format("{}: radius {:.3g} is promised, {:.3g} is certified today", label, radius[label], tensor.radius));
  }
  for (const auto& [label, value] : radius)
    if (std::ranges::none_of(today.tensors, [&, &key = label](const GoldenTensor& each) { return each.tensor.name == key; }))
      remarks.push_back(label + " is gone");
  const json fresh = manifest_of(today, "");
  for (const char* key : {"case", "regime", "token", "options", "formats", "contents", "oracle", "bounds", "layout"})
    if (manifest[key] != fresh[key]) remarks.push_back(std::string("manifest.json: '") + key + "' has changed");
  return remarks;
}

} // namespace

json read_manifest(const fs::path& folder) {
  const fs::path path = folder / "manifest.json";
  std::ifstream file(path);
  if (!file) throw BadFile(path.string() + " cannot be read");
  json manifest = json::parse(file, nullptr, false);
  if (manifest.is_discarded()) throw BadFile(path.string() + " is no JSON");
  if (auto breach = manifest_breach(manifest)) throw BadFile(path.string() + ": " + *breach);
  if (manifest["file"] != "tensors.safetensors") throw BadFile(path.string() + ": 'file' is not tensors.safetensors");
  return manifest;
}

CaseDifference difference_of(const fs::path& folder, const SetIndex* index, const GoldenCase* today) {
  try {
    if (index)
      if (auto remarks = against_index(folder, *index); !remarks.empty()) return {true, std::move(remarks)};
    const json manifest = read_manifest(folder);
    if (const std::string label = folder.extension() == ".new" ? folder.stem().string() : folder.filename().string();
        manifest["case"] != label)
      return {true, {"its manifest.json is that of the case '" + manifest["case"].get<std::string>() + "'"}};
    const SafetensorsFile file(folder / "tensors.safetensors");
    if (auto remarks = against_hashes(manifest, file.table()); !remarks.empty()) return {true, std::move(remarks)};
    if (today) return {false, against_today(manifest, file.table(), *today)};
    const GoldenCase blueprint = blueprint_of(manifest, folder.string());
    return {false, against_today(manifest, file.table(), golden_case(blueprint.name, blueprint.recipe, blueprint.contents))};
  } catch (const BadFile& error) {
    return {true, {error.what()}};
  } catch (const std::invalid_argument& error) {
    return {true, {error.what()}};
  }
}

} // namespace kdacheck
