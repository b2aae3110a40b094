#pragma once
// Times of kernels, oracle and gate, as rows of bench.json.

#include "../properties/margins.hpp"
#include "machine_limits.hpp"

#include <string>
#include <vector>

namespace kdacheck {

/// One timed thing. bytes: each input read once, each output written once. flops: what the algorithm needs.
struct BenchRow {
  std::string kernel; ///< "cpu.chunk64.bf16", or "oracle.fp64" and the like
  std::string what;   ///< "forward", "backward", "truth", ...
  std::string label;  ///< the case: "B 1, T 2048, H 2, K 128, V 128"
  double median_ms = 0, least_ms = 0, most_ms = 0;
  double bytes = 0, flops = 0;
  double token_heads = 0;      ///< tokens times value heads of the case
  double asked_per_second = 0; ///< token-heads per second that it should reach; 0: none are asked for
};

/// Two things timed by turns in one process: what does not depend on how fast or busy the machine is.
struct BenchRatio {
  std::string subject, what, label;      ///< "cpu.chunk64.fp32", "backward / forward", the case
  double first_ms = 0, second_ms = 0;    ///< medians
  double ratio = 0, least = 0, most = 0; ///< first / second of neighbouring runs: median and extremes
  double allowed = 0;                    ///< what the ratio should not exceed
};

struct Bench {
  MachineLimits limits;
  int threads = 1, repeats = 0;
  std::vector<BenchRow> rows;
  std::vector<BenchRatio> ratios;
  std::vector<KernelMargin> margins = {}; ///< of `bench --margins`
};

/// Keys of design section 8 and, besides, token_heads_per_second, least_ms and most_ms; of_bandwidth and of_compute are
/// shares of the limits measured in the same run; asked_per_second where a speed is asked for. ratios[] holds what was timed by turns,
/// margins[] what right kernels leave of z.
std::string to_bench_json(const Bench&);

/// The same as a table.
std::string to_text(const Bench&);

} // namespace kdacheck
