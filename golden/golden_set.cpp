#include "golden_set.hpp"

#include "../reference/atomic_file.hpp"
#include "../reference/named_file.hpp"
#include "case_difference.hpp"
#include "module_golden.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <utility>

namespace kdacheck {
namespace {

namespace fs = std::filesystem;

/// Something that a set can keep.
struct Entry {
  std::string name;
  std::function<void(const fs::path&)> write;                                       ///< at a place where nothing is
  std::function<CaseDifference(const fs::path&, const SetIndex* index)> difference; ///< of what stands at a place
};

bool there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(fs::symlink_status(path, ignored));
}

bool is_folder(const fs::path& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

void remove_what_is_at(const fs::path& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error) throw FileTrouble("cannot remove " + path.string() + ": " + error.message());
}

void move(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::rename(from, to, error);
  if (error) throw FileTrouble("cannot replace " + to.string() + ": " + error.message());
}

fs::path beside(const fs::path& set, const std::string& name, const char* ending) { return set / (name + ending); }

/// Nothing stands under the name before all of it does; what stood there before goes.
void write_whole(const fs::path& set, const Entry& entry, const fs::path& place) {
  const fs::path partial = beside(set, entry.name, ".partial");
  remove_what_is_at(partial);
  entry.write(partial);
  remove_what_is_at(place);
  move(partial, place);
}

/// Whether a run that was stopped left this: a name that only `generate` and `accept` give, or a folder with nothing but tensors and parts
/// of files.
bool is_unfinished(const fs::path& place) {
  if (place.filename().string().find(".partial") != std::string::npos || place.extension() == ".old") return true;
  if (!is_folder(place) || there(place / "manifest.json")) return false;
  std::error_code error;
  std::size_t files = 0;
  for (const auto& entry : fs::directory_iterator(place, error)) {
    const std::string name = entry.path().filename().string();
    if (name != "tensors.safetensors" && name.find(".partial-") == std::string::npos) return false;
    ++files;
  }
  return !error && files > 0;
}

bool is_empty_folder(const fs::path& place) {
  std::error_code error;
  return is_folder(place) && fs::is_empty(place, error);
}

/// Writes an entry that waits to be accepted; a sentence if it takes the place of another that waited.
std::string write_candidate(const fs::path& set, const Entry& entry) {
  const fs::path place = beside(set, entry.name, ".new");
  const bool folder = is_folder(place), waited = folder ? there(place / "manifest.json") : there(place);
  if (folder && !waited && !is_empty_folder(place) && !is_unfinished(place))
    throw BadFile(place.string() + " is in the way: it is no golden case");
  const std::string before = waited ? hash_for_index(place) : "";
  write_whole(set, entry, place);
  return waited && hash_for_index(place) != before ? place.filename().string() + " held another candidate: replaced" : "";
}

void put_into_index(const fs::path& set, SetIndex index, const std::string& name) {
  index[name] = hash_for_index(set / name);
  write_index(set, index);
}

GoldenOutcome outcome_of(std::string name, CaseDifference difference) {
  using enum GoldenOutcome::Kind;
  return {difference.damaged ? damaged : difference.remarks.empty() ? same : changed, std::move(name), std::move(difference.remarks)};
}

GoldenOutcome store(const fs::path& set, const Entry& entry) {
  using enum GoldenOutcome::Kind;
  const fs::path place = set / entry.name;
  const SetIndex index = index_so_far(set);
  const bool known = index.contains(entry.name);
  if (!there(place) || (!known && (is_empty_folder(place) || is_unfinished(place)))) {
    write_whole(set, entry, place);
    put_into_index(set, index, entry.name);
    return {.kind = written, .name = entry.name, .remarks = {}};
  }
  GoldenOutcome outcome = outcome_of(entry.name, entry.difference(place, known ? &index : nullptr));
  if (outcome.kind != same) {
    if (auto remark = write_candidate(set, entry); !remark.empty()) outcome.remarks.push_back(std::move(remark));
  } else if (!known) {
    put_into_index(set, index, entry.name);
  }
  return outcome;
}

CaseDifference difference_of_entry(const fs::path& place, const SetIndex* index) {
  return is_folder(place) ? difference_of(place, index, nullptr) : difference_of_module(place, index);
}

GoldenOutcome verified(const fs::path& place, const SetIndex& index) {
  using enum GoldenOutcome::Kind;
  const bool waits = waits_to_be_accepted(place);
  GoldenOutcome outcome = outcome_of(place.filename().string(), difference_of_entry(place, waits ? nullptr : &index));
  if (waits && outcome.kind == same) outcome.kind = waiting;
  return outcome;
}

/// What the index names and the set does not hold; if something else there is just that, it was renamed.
GoldenOutcome missing(const fs::path& set, const SetIndex& index, const std::string& name) {
  GoldenOutcome outcome{GoldenOutcome::Kind::damaged, name, {}};
  outcome.remarks.push_back("index.sha256 names it, but there is no " + name + (names_a_file(name) ? "" : "/manifest.json"));
  for (const fs::path& place : golden_entries(set)) {
    const std::string other = place.filename().string();
    if (index.contains(other) || waits_to_be_accepted(place)) continue;
    try {
      if (hash_for_index(place) == index.at(name)) outcome.remarks.push_back(other + " holds what it held: it was renamed");
    } catch (const BadFile&) { // said of that one
    }
  }
  return outcome;
}

std::vector<fs::path> sorted_paths(const fs::path& folder, bool (*wanted)(const fs::path&)) {
  std::vector<fs::path> paths;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error))
    if (wanted(entry.path())) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  return paths;
}

bool is_case(const fs::path& place) { return is_folder(place) && there(place / "manifest.json") && !is_unfinished(place); }

bool is_file_of_module(const fs::path& place) {
  return !is_folder(place) && names_a_file(waits_to_be_accepted(place) ? place.stem().string() : place.filename().string());
}

} // namespace

bool waits_to_be_accepted(const fs::path& entry) { return entry.extension() == ".new"; }

std::vector<fs::path> golden_cases(const fs::path& set) { return sorted_paths(set, is_case); }

std::vector<fs::path> golden_entries(const fs::path& set) {
  return sorted_paths(set, [](const fs::path& place) { return is_case(place) || is_file_of_module(place); });
}

void demand_entries(const fs::path& place) {
  if (!is_folder(place) && there(place) && is_file_of_module(place)) return demand_file(place);
  demand_folder(place);
  if (!is_case(place) && golden_entries(place).empty())
    throw BadFile(place.string() +
                  " holds no golden case: no folder in it has a manifest.json, as `golden generate` writes it, and no file is "
                  "that of a module's case");
}

GoldenOutcome store_golden(const fs::path& set, const GoldenCase& golden, const std::string& commit) {
  const auto write = [&](const fs::path& folder) {
    make_folder(folder);
    std::vector<OwnedTensor> tensors;
    for (const GoldenTensor& tensor : golden.tensors) tensors.push_back(tensor.tensor);
    write_tensors(folder / "tensors.safetensors", tensors, golden.metadata);
    write_atomically(folder / "manifest.json", manifest_text(manifest_of(golden, commit)));
  };
  return store(set,
               {golden.name, write, [&](const fs::path& place, const SetIndex* index) { return difference_of(place, index, &golden); }});
}

GoldenOutcome store_module_golden(const fs::path& set, const ModuleSuite& suite, std::string_view regime, std::uint64_t seed) {
  const auto write = [&](const fs::path& place) { write_module_golden(suite, regime, seed, place); };
  return store(set, {module_golden_name(suite, regime, seed), write, difference_of_module});
}

std::vector<GoldenOutcome> verify_golden(const fs::path& set, const std::function<void(const GoldenOutcome&)>& on_case) {
  demand_entries(set);
  if (is_case(set) || !is_folder(set)) throw BadFile(set.string() + " is one golden case: verify its set, which has the index");
  const auto entries = golden_entries(set);
  const SetIndex index = read_index(set);
  std::vector<GoldenOutcome> outcomes;
  const auto keep = [&](GoldenOutcome outcome) {
    outcomes.push_back(std::move(outcome));
    if (on_case) on_case(outcomes.back());
  };
  for (const fs::path& place : entries) keep(verified(place, index));
  for (const auto& [name, hash] : index)
    if (std::ranges::none_of(entries, [&, &label = name](const fs::path& place) { return place.filename() == label; }))
      keep(missing(set, index, name));
  for (const fs::path& place : sorted_paths(set, is_unfinished))
    if (!index.contains(place.filename().string()))
      keep({GoldenOutcome::Kind::unfinished, place.filename().string(), {"left by a run that was stopped: it is no case of the set"}});
  return outcomes;
}

void accept_golden(const fs::path& set, const std::string& name) {
  const fs::path fresh = beside(set, name, ".new"), place = set / name, old = beside(set, name, ".old");
  if (name.find('/') != std::string::npos) throw BadFile("'" + name + "' is no name of a case: give the set, then the name");
  if (!there(is_folder(fresh) ? fresh / "manifest.json" : fresh)) throw BadFile("there is no " + fresh.string() + " to accept");
  if (const CaseDifference difference = difference_of_entry(fresh, nullptr); !difference.remarks.empty())
    throw BadFile(fresh.string() + " cannot be accepted: " + difference.remarks.front());
  const SetIndex index = index_so_far(set);
  SetIndex with_fresh = index;
  with_fresh[name] = hash_for_index(fresh);
  write_index(set, with_fresh); // first: whatever step it is stopped at, NAME.new is there to be accepted again, or it is done
  try {
    if (there(place)) {
      remove_what_is_at(old);
      move(place, old);
    }
    move(fresh, place); // the manifest names the case, not the folder it waited in
  } catch (const FileTrouble&) {
    write_index(set, index);
    throw;
  }
  remove_what_is_at(old);
}

} // namespace kdacheck
