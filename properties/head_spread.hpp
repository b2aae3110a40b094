#pragma once
// How far perturbed runs of one head stray from the truth, group by group.

#include "budget_head.hpp"
#include "perturbed/lanes.hpp"
#include "perturbed/submodels.hpp"

#include <cstdint>
#include <vector>

namespace kdacheck {

/// Sums over draws of the second and fourth power of a group's root mean square error.
struct Moments {
  double second = 0, fourth = 0;
};

/// The groups of one head under one submodel: an order of evaluation with a noise model.
struct HeadSpread {
  std::vector<Moments> token;   ///< [tokens], over all columns: those not looked at err, by their size, as those looked at do on average
  std::vector<Moments> channel; ///< [V], over the tokens
  std::vector<Moments> row;     ///< [K], over all columns alike
  std::vector<Moments> column;  ///< [V], over K
};

/// Truth of one head at the columns looked at.
struct HeadTruth {
  std::vector<double> o;     ///< [tokens,V]
  std::vector<double> state; ///< [K,V]
};

/// One entry per submodel that the contract allows, or that of the first alone; `batches` times eight draws each.
std::vector<HeadSpread> head_spread(const Contract&, const Head&, const HeadTruth&, std::uint64_t seed, int batches,
                                    Submodels = Submodels::all);

/// Largest deviation from the truth of the noise-free run of every order: what shows that the perturbed algorithms are
/// the algorithm (relative to the largest output or state element).
double noise_free_deviation(const Contract&, const Head&, const HeadTruth&);

} // namespace kdacheck
