#pragma once
// Recipes as RapidCheck sees them: generators whose values know how to become simpler.

#include "recipe.hpp"

#include <rapidcheck/Gen.h>

#include <chrono>
#include <functional>

namespace kdacheck {

/// The tree of ever simpler recipes below a recipe.
rc::Shrinkable<Recipe> shrinkable(const Recipe&);

/// Recipes of one regime as its `round`-th draw (below 64: the first rounds pin what a regime must not leave to chance), over
/// seeds below 2^32 that are `round` modulo 64.
rc::Gen<Recipe> recipes_of(const Regime&, Tier, std::uint64_t round);

/// The recipe that a generator makes of a seed: the same on every machine, as RapidCheck's random numbers are integers of its
/// own and a recipe's own are Random123's.
Recipe drawn(const rc::Gen<Recipe>&, std::uint64_t seed);

/// Recipes of any regime, one in three with ingredients combined at will.
rc::Gen<Recipe> any_recipe(Tier);

/// Where a walk down the tree ended.
struct Shrunk {
  Recipe recipe;         ///< the simplest that still fails
  std::size_t steps = 0; ///< simplifications that kept the failure
  std::size_t tried = 0;
  bool finished = false; ///< no simpler recipe fails; false: the deadline came first
};

/// Follows the first simplification that still fails, again and again, until none does or the deadline has passed.
/// `still_fails` is called at least once per step and may throw; a throw ends the walk and passes on.
Shrunk shrunk(const Recipe&, const std::function<bool(const Recipe&)>& still_fails, std::chrono::steady_clock::time_point deadline);

} // namespace kdacheck
