#pragma once
// Two runs side by side: verdicts that changed, what is judged no more, and whether errors grew beyond what chance explains.

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

/// A group that passed in both and whose worst error / bound, on the same cases, grew beyond what chance explains; or is no number now.
struct GroupGrowth {
  GroupKey key;
  double before, after;
  double noise;       ///< the factor by which chance is taken to move the kernel's figures: the mean one by which those that shrank did,
  std::size_t shrunk; ///< so many; 0 where they shrank by less than chance is believed to do, or none did, and that is taken instead
  double chance;      ///< probability that any of the kernel's figures grows so far by chance alone; 0 for what is no number
};

/// A group that both runs have, of the same tier and seed, and the second judged (that is, did not refuse) or passed in fewer cases.
struct ThinnerGroup {
  GroupKey key;
  std::size_t before, after;
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
  std::vector<ErrorChange> errors;                    ///< one per kernel that both runs have
  std::vector<GroupGrowth> growths;                   ///< the largest first
  std::vector<ThinnerGroup> thinner, fewer_passed;    ///< judged in fewer cases; else passed in fewer, its verdict no graver
  std::vector<std::string> kernels_gone, kernels_new; ///< names; gone: without a judged case now
  std::vector<GroupKey> groups_gone;                  ///< judged in the first only, by a kernel that both have
  std::size_t groups = 0, groups_only_in_first = 0, groups_only_in_second = 0; ///< in both; in one, by whatever kernel
  std::string stands_for;  ///< of two runs of one kernel each, the second's name, where it is not the first's: they are compared as one
  bool same_cases = false; ///< tier and seed agree: differences come from the programs, not from the draw
  bool first_stopped = false, second_stopped = false; ///< the run did not come to its end
  /// Neither did: what only one of them reached is no loss, and is not compared.
  bool both_stopped() const { return first_stopped && second_stopped; }
};

/// Two runs of one kernel each are compared though their names differ; cases that only one of them drew are then no loss.
/// A kernel's errors count as grown if the sign test leaves less than one chance in a thousand and the median ratio is at
/// least 1.1: a tenth of the way to a bound that is itself only known to a few percent. A single group's, where both runs judged the same
/// cases, if less than one chance in a thousand is left for the kernel (compare.cpp derives it from how far the others moved).
Comparison compare(const Results& before, const Results& after);

/// A verdict got worse, errors grew, or something that the first run judged was not judged by the second, or not to the end (unless
/// neither came to its end).
bool got_worse(const Comparison&);

/// 1 if something got worse, 5 if the runs have no group in common, else 0.
int exit_status(const Comparison&);

/// Verdict changes (worse ones first), ratios per kernel with quartiles, what only one run has, and a closing line.
std::string to_text(const Comparison&);

/// `./kdacheck compare A B`: two result folders. Prints the text; returns the exit status. Throws std::invalid_argument
/// with one sentence for a folder that holds no run of this schema version, or one that contradicts itself.
int compare_command(const std::string& before, const std::string& after);

} // namespace kdacheck
