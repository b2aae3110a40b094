#include "page.hpp"

#include <cmath>
#include <cstdio>
#include <limits>
#include <map>
#include <sstream>
#include <vector>

namespace kdacheck::evidence {
namespace {

using nlohmann::json;

/// A number of a row in a format, or nothing where the row has none.
std::string cell(const json& row, const char* key, const char* format, double scale = 1) {
  if (!row.contains(key) || !row[key].is_number()) return "";
  char text[32];
  std::snprintf(text, sizeof text, format, scale * row[key].get<double>());
  return text;
}

void write_times(const json& evidence, std::ostream& out) {
  out << "\n## Time\n\nMedian of graph replays, K = V = 128, bf16 in, bounded gate, l2norm and sigmoid inside, fp32 final state. Called: "
         "without a graph. Flushed: caches written over before each replay. Warm: the same data again and again; in the other columns sets "
         "of inputs take turns where one would stay in the cache.\n"
      << "Share: bytes that must move over the copy bandwidth, operations over the rate of matrix products. Target: milliseconds, for "
         "decode "
         "the share.\n\n"
      << "| kernel | case | median ms | least ms | called | flushed | warm | share of copy | of products | target |\n"
         "|---|---|---|---|---|---|---|---|---|---|\n";
  for (const json& row : evidence["timing"])
    out << "| " << row["kernel"].get<std::string>() << " | " << row["case"].get<std::string>() << " | " << cell(row, "median_ms", "%.4f")
        << " | " << cell(row, "least_ms", "%.4f") << " | " << cell(row, "call_ms", "%.4f") << " | " << cell(row, "flushed_ms", "%.4f")
        << " | " << cell(row, "warm_ms", "%.4f") << " | " << cell(row, "of_bandwidth", "%.1f %%", 100) << " | "
        << cell(row, "of_compute", "%.1f %%", 100) << " | " << (row["target"] == 0.0 ? "" : row["target"].dump()) << " |\n";
}

/// Which kernels here do what a peer's does.
std::vector<std::string> counterparts(const std::string& peer) {
  if (peer.starts_with("fla chunk_kda fwd+bwd")) return {"fwd+bwd fast", "fwd+bwd accurate"};
  if (peer.starts_with("fla chunk_kda")) return {"fast", "accurate"};
  if (peer.starts_with("fla chunk_dplr")) return {"dplr"};
  if (peer.starts_with("fla fused_recurrent_kda")) return {"decode"};
  return {};
}

/// Peers' times and errors on the same inputs, each above the kernels here that do the same.
void write_peers(const json& evidence, std::ostream& out) {
  if (!evidence.contains("peers")) return;
  out << "\n## Peers\n\nIn the same run, on the same inputs:";
  for (const auto& [name, version] : evidence["peers"].items()) out << ' ' << name << ' ' << version.get<std::string>();
  out << ". Errors: relative L2 errors on these inputs against double, over the first head of the first sequence and the last of the "
         "last.\n\n| case | kernel | median ms | called ms | of the peer's time | o errs by | the state by "
         "|\n|---|---|---|---|---|---|---|\n";
  std::vector<std::string> notes;
  for (const json& peer : evidence["timing"]) {
    const std::string kernel = peer["kernel"];
    const auto own = counterparts(kernel);
    if (own.empty()) continue;
    if (peer.contains("note")) notes.push_back(kernel + ", " + peer["case"].get<std::string>() + ": " + peer["note"].get<std::string>());
    const auto line = [&](const json& row) {
      json share = row;
      share["share"] = row["median_ms"].get<double>() / peer["median_ms"].get<double>();
      out << "| " << row["case"].get<std::string>() << " | " << row["kernel"].get<std::string>() << " | " << cell(row, "median_ms", "%.4f")
          << " | " << cell(row, "call_ms", "%.4f") << " | " << cell(share, "share", "%.3f") << " | " << cell(row, "error_o", "%.1e")
          << " | " << cell(row, "error_state", "%.1e") << " |\n";
    };
    line(peer);
    for (const json& row : evidence["timing"])
      for (const std::string& name : own)
        if (row["kernel"] == name && row["case"] == peer["case"]) line(row);
  }
  for (const std::string& note : notes) out << "\n" << note << ".\n";
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
    for (const auto& [name, value] : row.items()) {
      if (!value.is_number_float() && !value.is_null()) continue;
      const double error = value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>(); // JSON has no NaN
      Worst& most = worst[kernel][name];
      if (!std::isnan(most.error) && !(error < most.error)) most = {error, row["regime"].get<std::string>()};
    }
  }
  for (const std::string& kernel : kernels)
    for (const auto& [name, most] : worst[kernel]) {
      char error[32];
      std::snprintf(error, sizeof error, "%.1e", most.error);
      out << "| " << kernel << " | " << runs[kernel] << " | " << name << " | " << error << " | " << most.regime << " |\n";
    }
}

} // namespace

std::string markdown_of(const json& evidence) {
  std::ostringstream out;
  char line[256];
  out << "# CUDA kernels: evidence\n\nMade on " << evidence["date"].get<std::string>() << " on one "
      << evidence["device"].get<std::string>() << " from sources with sha256 `" << evidence["sources_sha256"].get<std::string>()
      << "`.\n\n";
  std::snprintf(line, sizeof line, "Device copy in the same run: %.2f TB/s, bytes read and written.",
                evidence["copy_bytes_per_second"].get<double>() * 1e-12);
  out << line;
  if (const std::string rate = cell(evidence, "matrix_product_flops_per_second", "%.0f", 1e-12); !rate.empty())
    out << " Product of bf16 matrices of 8192 x 8192: " << rate << " TFLOP/s.";
  out << "\n";
  if (!roofline_of(evidence).empty()) out << "\n![operations per byte against operations per second](roofline.svg)\n";
  write_times(evidence, out);
  write_peers(evidence, out);
  out << "\n## Accuracy\n\nRelative L2 error of o and of the final state against the token recurrence in double.\n\n| regime | kernel | o "
         "| state |\n|---|---|---|---|\n";
  for (const json& row : evidence["accuracy"])
    out << "| " << row["regime"].get<std::string>() << " | " << row["kernel"].get<std::string>() << " | " << cell(row, "o", "%.1e") << " | "
        << cell(row, "state", "%.1e") << " |\n";
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

} // namespace kdacheck::evidence
