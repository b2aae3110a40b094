#pragma once
// Two runs side by side: verdicts that changed, and whether errors grew beyond what chance explains.

#include "results.hpp"

#include <string>
#include <vector>

namespace kdacheck {

/// A kernel x property x regime whose gravest verdict is not the same in both runs.
struct VerdictChange {
  GroupKey key;
  Verdict before, after;
  bool worse; ///< now a failure or a graver one; or it passed and is now inconclusive or not supported
};

/// Worst error / bound of a kernel's groups, second run over first, over the groups that passed in both.
struct ErrorChange {
  std::string kernel;
  std::size_t groups = 0, grown = 0, shrunk = 0; ///< groups with a figure above zero in both; equal ones are neither
  double lower_quartile = 1, median = 1, upper_quartile = 1;
  double chance = 1; ///< probability that so many or more of the changed groups grow if growth and shrinkage are alike (sign test)
  bool worse = false;
};

struct Comparison {
  std::vector<VerdictChange> verdicts;
  std::vector<ErrorChange> errors;                         ///< one per kernel that both runs have
  std::vector<std::string> kernels_gone, kernels_new;      ///< names
  std::size_t groups = 0, groups_gone = 0, groups_new = 0; ///< in both; in the first only; in the second only
  bool same_cases = false;                                 ///< tier and seed agree: differences come from the programs, not from the draw
};

/// A kernel's errors count as grown if the sign test leaves less than one chance in a thousand and the median ratio is at
/// least 1.1: a tenth of the way to a bound that is itself only known to a few percent.
Comparison compare(const Results& before, const Results& after);

bool got_worse(const Comparison&);

/// 1 if something got worse, 5 if the runs have no group in common, else 0.
int exit_status(const Comparison&);

/// Verdict changes (worse ones first), ratios per kernel with quartiles, what only one run has, and a closing line.
std::string to_text(const Comparison&);

/// `./kdacheck compare A B`: two result folders. Prints the text; returns the exit status. Throws std::invalid_argument
/// with one sentence for a folder without a report of this schema version.
int compare_command(const std::string& before, const std::string& after);

} // namespace kdacheck
