#include "set_index.hpp"

#include "../reference/atomic_file.hpp"
#include "../reference/named_file.hpp"
#include "../reference/safetensors.hpp"
#include "../reference/sha256.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <span>
#include <sstream>

namespace kdacheck {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view index_name = "index.sha256", manifest_suffix = "/manifest.json", file_suffix = ".safetensors";
constexpr std::array<std::string_view, 4> endings_with_a_meaning{".new", ".old", ".partial", file_suffix};
constexpr std::size_t longest_name = 200; // file systems take 255 bytes, and endings come behind

bool is_hash(std::string_view text) { return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string_view::npos; }

/// The name that a path of the index gives, or nothing.
std::string_view name_in(std::string_view path) {
  const std::string_view name = path.ends_with(manifest_suffix) ? path.substr(0, path.size() - manifest_suffix.size()) : path;
  const bool plain = !name.empty() && name.find('/') == std::string_view::npos && name != "." && name != "..";
  return plain && names_a_file(name) == (name.size() == path.size()) ? name : std::string_view();
}

std::string path_of(const std::string& name) { return names_a_file(name) ? name : name + std::string(manifest_suffix); }

} // namespace

bool names_a_file(std::string_view name) { return name.ends_with(file_suffix); }

bool is_case_name(std::string_view name) {
  return !name.empty() && name.size() <= longest_name && name.front() != '.' &&
         std::ranges::all_of(name, [](unsigned char c) { return c < 0x80 && (std::isalnum(c) || c == '-' || c == '.' || c == '_'); }) &&
         std::ranges::none_of(endings_with_a_meaning, [&](std::string_view ending) { return name.ends_with(ending); });
}

SetIndex read_index(const fs::path& set) {
  const fs::path path = set / index_name;
  std::error_code ignored;
  if (!fs::exists(path, ignored)) throw BadFile(set.string() + " has no " + std::string(index_name) + ", which `golden generate` writes");
  std::istringstream file(text_of_file(path));
  SetIndex index;
  std::string line;
  for (std::size_t number = 1; std::getline(file, line); ++number) {
    const std::string_view text = line;
    const std::string_view hash = text.substr(0, 64), name = text.size() > 66 ? name_in(text.substr(66)) : std::string_view();
    if (!is_hash(hash) || text.substr(64, 2) != "  " || name.empty())
      throw BadFile(path.string() + ", line " + std::to_string(number) +
                    ": expected SHA256  CASE/manifest.json or SHA256  FILE.safetensors");
    if (!index.emplace(name, hash).second)
      throw BadFile(path.string() + ", line " + std::to_string(number) + ": names a case for the second time");
  }
  return index;
}

SetIndex index_so_far(const fs::path& set) {
  std::error_code ignored;
  return fs::exists(set / index_name, ignored) ? read_index(set) : SetIndex();
}

void write_index(const fs::path& set, const SetIndex& index) {
  std::string text;
  for (const auto& [name, hash] : index) text.append(hash).append("  ").append(path_of(name)).append("\n");
  write_atomically(set / index_name, text);
}

std::string hash_for_index(const fs::path& place) {
  std::error_code ignored;
  const std::string text = text_of_file(fs::is_directory(place, ignored) ? place / "manifest.json" : place);
  return sha256_of(std::as_bytes(std::span(text)));
}

std::optional<std::string> breach_of_index(const fs::path& place, const SetIndex& index) {
  const std::string name = place.filename().string(), what = names_a_file(name) ? "it" : "manifest.json";
  const auto promised = index.find(name);
  if (promised == index.end()) return "index.sha256 does not name " + (names_a_file(name) ? what : "its " + what);
  if (promised->second != hash_for_index(place)) return what + " is not the one of which index.sha256 holds the sha256";
  return std::nullopt;
}

} // namespace kdacheck
