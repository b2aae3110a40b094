// cuda_evidence ROOT: says what the last run on a GPU showed and whether the kernels are still those that ran.
// cuda_evidence ROOT --record RESULT.json DATE: files a result of kdacheck_cuda_check as the evidence.
// cuda_evidence ROOT --page: writes page and picture anew from the evidence.
// Exit status: 0 sources match, 5 stale, 1 the evidence is missing, holds a failure or its page does not follow from it, 2 wrong usage.

#include "page.hpp"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <openssl/evp.h>
#include <set>
#include <string>

namespace {

namespace fs = std::filesystem;
using kdacheck::evidence::markdown_of, kdacheck::evidence::roofline_of;
using nlohmann::json;

const char* const evidence_file = "reports/cuda/evidence.json";
const char* const markdown_file = "reports/cuda/evidence.md";
const char* const picture_file = "reports/cuda/roofline.svg";
const char* const tasks_file = "reports/cuda/synthetic_tasks.json"; ///< of training with the kernels, which name their sources likewise

/// sha256 over names and contents of everything that is compiled into the kernels and their adapter, in order of name.
std::string sources_digest(const fs::path& root) {
  const fs::path folder = root / "kernels/cuda";
  const std::set<std::string> endings{".cu", ".cuh", ".h", ".hpp", ".cpp"}, others{"driver", "emulated", "evidence", "tests"};
  std::set<fs::path> files;
  for (fs::recursive_directory_iterator entry(folder), end; entry != end; ++entry)
    if (entry->is_directory() && others.contains(entry->path().filename().string()))
      entry.disable_recursion_pending();
    else if (entry->is_regular_file() && endings.contains(entry->path().extension().string()))
      files.insert(entry->path());
  std::string all;
  for (const fs::path& file : files) {
    std::ifstream stream(file, std::ios::binary);
    all += file.lexically_relative(folder).string() + '\0' + std::string(std::istreambuf_iterator<char>(stream), {}) + '\0';
  }
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned length = 0;
  EVP_Digest(all.data(), all.size(), digest, &length, EVP_sha256(), nullptr);
  std::string text;
  for (unsigned i = 0; i < length; ++i) {
    char two[3];
    std::snprintf(two, sizeof two, "%02x", digest[i]);
    text += two;
  }
  return text;
}

void write_page(const fs::path& root, const json& evidence) {
  std::ofstream(root / markdown_file) << markdown_of(evidence);
  if (const std::string picture = roofline_of(evidence); !picture.empty())
    std::ofstream(root / picture_file) << picture;
  else
    fs::remove(root / picture_file);
}

std::string contents(const fs::path& file) {
  std::ifstream stream(file);
  return {std::istreambuf_iterator<char>(stream), {}};
}

int record(const fs::path& root, const fs::path& result, const std::string& date) {
  std::ifstream stream(result);
  json evidence = json::parse(stream);
  evidence["date"] = date;
  evidence["sources_sha256"] = sources_digest(root);
  fs::create_directories((root / evidence_file).parent_path());
  std::ofstream(root / evidence_file) << evidence.dump(1) << '\n';
  write_page(root, evidence);
  return 0;
}

int check(const fs::path& root) {
  std::ifstream stream(root / evidence_file);
  const json evidence = json::parse(stream, nullptr, false);
  if (!stream || evidence.is_discarded()) {
    std::printf("not run: no GPU; no evidence in %s\n", evidence_file);
    return 1;
  }
  const std::string sources = sources_digest(root);
  const bool match = evidence.at("sources_sha256") == sources;
  std::printf("not run: no GPU; evidence of %s, sources %s\n", evidence.at("date").get<std::string>().c_str(), match ? "match" : "stale");
  const json tasks = json::parse(contents(root / tasks_file), nullptr, false);
  if (tasks.is_discarded() || !tasks.is_object() || !tasks.contains("sources_sha256")) {
    std::printf("%s is missing or names no sources\n", tasks_file);
    return 1;
  }
  const bool tasks_match = tasks.at("sources_sha256") == sources;
  if (!tasks_match) std::printf("synthetic tasks trained with other sources: %s is stale\n", tasks_file);
  for (const char* part : {"accuracy", "gradients", "behaviour"}) {
    const json& rows = evidence.at(part);
    if (rows.empty() || !std::all_of(rows.begin(), rows.end(), [](const json& row) { return row.at("good") != false; })) {
      std::printf("the evidence holds a failure in %s\n", part);
      return 1;
    }
  }
  for (const auto& [file, wanted] : {std::pair{markdown_file, markdown_of(evidence)}, std::pair{picture_file, roofline_of(evidence)}})
    if (contents(root / file) != wanted) {
      std::printf("%s is not what %s gives\n", file, evidence_file);
      return 1;
    }
  return match && tasks_match ? 0 : 5;
}

} // namespace

int main(int argc, char** argv) {
  if (argc == 2) return check(argv[1]);
  if (argc == 5 && std::string(argv[2]) == "--record") return record(argv[1], argv[3], argv[4]);
  if (argc == 3 && std::string(argv[2]) == "--page")
    return write_page(argv[1], json::parse(contents(fs::path(argv[1]) / evidence_file))), 0;
  std::fprintf(stderr, "usage: cuda_evidence ROOT [--record RESULT.json DATE | --page]\n");
  return 2;
}
