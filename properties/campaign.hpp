#pragma once
// Runs properties on kernels over regimes and hands every result to the caller.

#include "cases/found_cases.hpp"
#include "property.hpp"

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

namespace kdacheck {

/// One case: a property checked on a kernel for one recipe.
struct CaseResult {
  std::string kernel, property, regime;
  std::string replay;         ///< token; `./kdacheck replay TOKEN` runs it again
  std::string shrunk;         ///< token of the simplest recipe found that still fails, or empty
  std::string localised = {}; ///< stage and first wrong place (localise.hpp), or empty
  Finding finding;
  double seconds = 0;
};

/// The key by which a resumed run recognises a finished case.
std::string case_key(const CaseResult&);

/// What a replay token holds: which kernel and property, and the recipe.
struct Replay {
  std::string kernel, property;
  Recipe recipe;
};
std::string replay_token(const Replay&);
Replay replay_from_token(std::string_view); ///< throws std::invalid_argument with one sentence

/// Crashes and time-outs of one kernel, whose every trial may cost a process or a whole call's patience, are shrunk for so many times
/// shrink_seconds in all.
constexpr double crashes_shrunk_for = 2;

struct Plan {
  std::vector<const Kernel*> kernels;
  std::vector<const Property*> properties;
  std::vector<const Regime*> regimes;
  std::vector<const FoundCase*> found = {}; ///< run before the regimes, each by its own law
  Tier tier = Tier::quick;
  std::uint64_t seed = 1;
  std::optional<double> time_budget; ///< seconds
  int shard = 0, shards = 1;         ///< this run takes every case whose index mod shards is shard
  int threads = 0;                   ///< 0: all cores
  double shrink_seconds = 5;         ///< per failing (kernel, property, regime)
  /// So many (property, regime) of a failing kernel are localised, the first that fail; of properties not among them the first, up to four
  /// times as many in all.
  int localised_per_kernel = 0;
  std::unordered_set<std::string> finished;                 ///< keys of an interrupted run's results
  bool drop_failed_kernels = false;                         ///< a kernel that has failed once is not judged any further
  std::function<void(const CaseResult&)> on_failure;        ///< the first failure of a (kernel, property, regime), before it is shrunk
  std::function<void(const CaseResult&)> on_localised = {}; ///< the same failure once it is localised
  /// No more crashes and time-outs of a kernel are shrunk: that has taken so many seconds, more than crashes_shrunk_for times
  /// shrink_seconds.
  std::function<void(const std::string& kernel, double seconds)> on_unshrunk = {};
};

struct Progress {
  std::size_t planned = 0, done = 0, failed = 0;
};

struct Outcome {
  std::size_t planned = 0, ran = 0, skipped = 0; ///< skipped: found in `finished`
  bool stopped = false;                          ///< at the time budget or on request
};

/// Results arrive one at a time (the callback is never entered twice at once). Returns when all is done, the budget is
/// spent, or `stop` says so; a case whose call was given up (CallAbandoned) is none.
Outcome run_campaign(const Plan&, const std::function<void(const CaseResult&)>& on_result,
                     const std::function<void(const Progress&)>& on_progress = {}, const std::function<bool()>& stop = {});

/// Checks one property on one kernel for one recipe, without shrinking. Never throws for what a kernel does; CallAbandoned.
CaseResult run_case(const Kernel&, const Property&, const Recipe&, Judge&);

} // namespace kdacheck
