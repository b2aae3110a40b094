#pragma once
// Times of kernels, oracle and gate, as rows of bench.json.

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
  double token_heads = 0; ///< tokens times value heads of the case
};

struct Bench {
  MachineLimits limits;
  int threads = 1, repeats = 0;
  std::vector<BenchRow> rows;
};

/// Keys of design section 8 and, besides, token_heads_per_second, least_ms and most_ms; of_bandwidth and of_compute are
/// shares of the limits measured in the same run.
std::string to_bench_json(const Bench&);

/// The same as a table.
std::string to_text(const Bench&);

} // namespace kdacheck
