#include "set_index.hpp"

#include "../reference/atomic_file.hpp"
#include "../reference/safetensors.hpp"
#include "../reference/sha256.hpp"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <span>
#include <sstream>

namespace kdacheck {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view index_name = "index.sha256", manifest_suffix = "/manifest.json";

bool is_hash(std::string_view text) { return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string_view::npos; }

} // namespace

SetIndex read_index(const fs::path& set) {
  const fs::path path = set / index_name;
  std::ifstream file(path, std::ios::binary);
  if (!file) throw BadFile(set.string() + " has no " + std::string(index_name) + ", which `golden generate` writes");
  SetIndex index;
  std::string line;
  for (std::size_t number = 1; std::getline(file, line); ++number) {
    const std::string_view text = line;
    const std::string_view hash = text.substr(0, 64), rest = text.size() > 66 ? text.substr(66) : std::string_view();
    if (!is_hash(hash) || text.substr(64, 2) != "  " || !rest.ends_with(manifest_suffix) || rest.size() == manifest_suffix.size())
      throw BadFile(path.string() + ", line " + std::to_string(number) + ": expected SHA256  CASE/manifest.json");
    if (!index.emplace(rest.substr(0, rest.size() - manifest_suffix.size()), hash).second)
      throw BadFile(path.string() + ", line " + std::to_string(number) + ": names a case for the second time");
  }
  return index;
}

SetIndex index_so_far(const fs::path& set) { return fs::exists(set / index_name) ? read_index(set) : SetIndex(); }

void write_index(const fs::path& set, const SetIndex& index) {
  std::string text;
  for (const auto& [name, hash] : index) text.append(hash).append("  ").append(name).append(manifest_suffix).append("\n");
  write_atomically(set / index_name, text);
}

std::string manifest_hash(const fs::path& case_folder) {
  std::ifstream file(case_folder / "manifest.json", std::ios::binary);
  if (!file) throw BadFile((case_folder / "manifest.json").string() + " cannot be read");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  return sha256_of(std::as_bytes(std::span(text)));
}

} // namespace kdacheck
