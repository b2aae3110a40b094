#pragma once
// Looks for the recipe on which a kernel comes closest to its bound, or breaks it.

#include "campaign.hpp"

#include <functional>
#include <vector>

namespace kdacheck {

struct SearchPlan {
  const Kernel* kernel = nullptr;
  std::vector<const Regime*> regimes; ///< where the search starts
  Tier tier = Tier::quick;
  bool backward = false;
  std::uint64_t seed = 1;
  double seconds = 60;
  double shrink_seconds = 20;
  int threads = 0;
};

/// The worst case of one kind of recipe (key pattern x gate pattern).
struct Elite {
  Recipe recipe;
  Finding finding;
};

struct SearchResult {
  std::vector<Elite> elites; ///< worst first
  std::size_t evaluations = 0;
  std::optional<Recipe> shrunk; ///< simplest recipe that still fails like the worst one, if that one fails
  bool failed() const { return !elites.empty() && is_failure(elites.front().finding.verdict); }
};

/// Illumination search (MAP-Elites; Mouret and Clune 2015): for every pair of key and gate pattern the recipe with the
/// largest error / bound is kept; parents are drawn from these, their continuous parameters multiplied by log-normal
/// factors, their shapes moved to neighbouring and to chunk-boundary sizes, their heads, batches and packed lengths changed, or
/// their ingredients exchanged. The order of
/// evaluations depends on the number of threads; a single thread repeats exactly.
SearchResult search_worst(const SearchPlan&, const std::function<void(const Elite&, std::size_t evaluations)>& on_improvement = {});

/// One random variation of a recipe; `other` lends an ingredient now and then.
Recipe varied(const Recipe&, const Recipe& other, std::uint64_t random_seed);

} // namespace kdacheck
