// cuda_evidence ROOT: says what the last run on a GPU showed and whether the kernels are still those that ran.
// cuda_evidence ROOT --record RESULT.json DATE: files a result of kdacheck_cuda_check as the evidence.
// Exit status: 0 sources match, 5 stale, 1 the evidence is missing, holds a failure or its page does not follow from it, 2 wrong usage.

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <openssl/evp.h>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

const char* const evidence_file = "reports/cuda/evidence.json";
const char* const markdown_file = "reports/cuda/evidence.md";

/// sha256 over names and contents of everything that is compiled into the kernels, in order of name.
std::string sources_digest(const fs::path& root) {
  std::set<fs::path> files;
  for (const auto& entry : fs::directory_iterator(root / "kernels/cuda"))
    if (entry.is_regular_file() && std::set<std::string>{".cu", ".cuh", ".h", ".hpp", ".cpp"}.contains(entry.path().extension().string()))
      files.insert(entry.path());
  std::string all;
  for (const fs::path& file : files) {
    std::ifstream stream(file, std::ios::binary);
    all += file.filename().string() + '\0' + std::string(std::istreambuf_iterator<char>(stream), {}) + '\0';
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

/// The largest error of every gradient over the regimes that a kernel ran, and where.
void write_gradients(const json& evidence, std::ostream& out) {
  out << "\n## Gradients\n\nLargest relative L2 error over all regimes and losses against the adjoint in double, and its regime; none "
         "where "
         "the kernel has no such input.\n\n| kernel | runs | gradient of | error | regime |\n|---|---|---|---|---|\n";
  struct Worst {
    double error = 0;
    std::string regime;
  };
  std::vector<std::string> kernels; // in order of appearance, which keeps those of one kind together
  std::map<std::string, std::map<std::string, Worst>> worst;
  std::map<std::string, int> runs;
  for (const json& row : evidence["gradients"]) {
    const std::string kernel = row["kernel"];
    if (runs[kernel]++ == 0) kernels.push_back(kernel);
    for (const auto& [name, error] : row.items())
      if (error.is_number_float() && !(error.get<double>() < worst[kernel][name].error))
        worst[kernel][name] = {error.get<double>(), row["regime"].get<std::string>()};
  }
  for (const std::string& kernel : kernels)
    for (const auto& [name, most] : worst[kernel]) {
      char error[32];
      std::snprintf(error, sizeof error, "%.1e", most.error);
      out << "| " << kernel << " | " << runs[kernel] << " | " << name << " | " << error << " | " << most.regime << " |\n";
    }
}

std::string markdown_of(const json& evidence) {
  std::ostringstream out;
  char line[256];
  out << "# CUDA kernels: evidence\n\nMade on " << evidence["date"].get<std::string>() << " on one "
      << evidence["device"].get<std::string>() << " from sources with sha256 `" << evidence["sources_sha256"].get<std::string>()
      << "`.\n\n";
  std::snprintf(line, sizeof line, "Device copy in the same run: %.2f TB/s, bytes read and written.\n",
                evidence["copy_bytes_per_second"].get<double>() * 1e-12);
  out << line << "\n## Time\n\nMedian of graph replays, K = V = 128, bf16 in, bounded gate, l2norm and sigmoid inside, fp32 final state.\n"
      << "Share: bytes that must move over the copy bandwidth. Target: milliseconds, for decode the share.\n\n"
      << "| kernel | case | median ms | least ms | share | target |\n|---|---|---|---|---|---|\n";
  for (const json& row : evidence["timing"]) {
    std::snprintf(line, sizeof line, "| %s | %s | %.4f | %.4f | %.1f %% | %s |\n", row["kernel"].get<std::string>().c_str(),
                  row["case"].get<std::string>().c_str(), row["median_ms"].get<double>(), row["least_ms"].get<double>(),
                  100 * row["of_bandwidth"].get<double>(), row["target"] == 0.0 ? "" : row["target"].dump().c_str());
    out << line;
  }
  out << "\n## Accuracy\n\nRelative L2 error of o and of the final state against the token recurrence in double.\n\n| regime | kernel | o "
         "| state |\n|---|---|---|---|\n";
  for (const json& row : evidence["accuracy"]) {
    std::snprintf(line, sizeof line, "| %s | %s | %.1e | %.1e |\n", row["regime"].get<std::string>().c_str(),
                  row["kernel"].get<std::string>().c_str(), row["o"].get<double>(), row["state"].get<double>());
    out << line;
  }
  write_gradients(evidence, out);
  out << "\n## Behaviour\n\n| what | kernel | |\n|---|---|---|\n";
  for (const json& row : evidence["behaviour"])
    out << "| " << row["what"].get<std::string>() << " | " << row["kernel"].get<std::string>() << " | "
        << (row["good"].is_null() ? "not run: " + row["not_run"].get<std::string>()
            : row["good"]         ? "yes"
                                  : "NO")
        << " |\n";
  return out.str();
}

int record(const fs::path& root, const fs::path& result, const std::string& date) {
  std::ifstream stream(result);
  json evidence = json::parse(stream);
  evidence["date"] = date;
  evidence["sources_sha256"] = sources_digest(root);
  fs::create_directories((root / evidence_file).parent_path());
  std::ofstream(root / evidence_file) << evidence.dump(1) << '\n';
  std::ofstream(root / markdown_file) << markdown_of(evidence);
  return 0;
}

int check(const fs::path& root) {
  std::ifstream stream(root / evidence_file);
  const json evidence = json::parse(stream, nullptr, false);
  if (!stream || evidence.is_discarded()) {
    std::printf("not run: no GPU; no evidence in %s\n", evidence_file);
    return 1;
  }
  const bool match = evidence.at("sources_sha256") == sources_digest(root);
  std::printf("not run: no GPU; evidence of %s, sources %s\n", evidence.at("date").get<std::string>().c_str(), match ? "match" : "stale");
  for (const char* part : {"accuracy", "gradients", "behaviour"}) {
    const json& rows = evidence.at(part);
    if (rows.empty() || !std::all_of(rows.begin(), rows.end(), [](const json& row) { return row.at("good") != false; })) {
      std::printf("the evidence holds a failure in %s\n", part);
      return 1;
    }
  }
  std::ifstream page(root / markdown_file);
  if (std::string(std::istreambuf_iterator<char>(page), {}) != markdown_of(evidence)) {
    std::printf("%s is not what %s gives\n", markdown_file, evidence_file);
    return 1;
  }
  return match ? 0 : 5;
}

} // namespace

int main(int argc, char** argv) {
  if (argc == 2) return check(argv[1]);
  if (argc == 5 && std::string(argv[2]) == "--record") return record(argv[1], argv[3], argv[4]);
  std::fprintf(stderr, "usage: cuda_evidence ROOT [--record RESULT.json DATE]\n");
  return 2;
}
