#pragma once
// The trend over many runs: how each kernel's worst error, failures and time moved.

#include "results.hpp"

#include <string>
#include <vector>

namespace kdacheck {

struct PastRun {
  std::string folder;
  Results results;
};

/// Oldest first (by start; runs that started together in the order given).
void sort_by_start(std::vector<PastRun>&);

/// For the page: same_cases; runs[]{folder, started, commit, tier, seed, cpu, cases, failures, stopped, seconds}; kernels[]{name, util[],
/// failures[], seconds[] (per case), verdict[], replay[]}, one entry per run, null where the run has no such kernel.
std::string to_history_json(const std::vector<PastRun>&);

/// A line per run, then a line per kernel with its largest error / bound in every run.
std::string to_text(const std::vector<PastRun>&);

} // namespace kdacheck
