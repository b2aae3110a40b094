#pragma once
// Bounds that a consumer of a golden case may hold a kernel to, stored with the case so that nobody has to derive them again.

#include "../properties/recipe.hpp"
#include "../reference/truth.hpp"

#include <string>
#include <vector>

namespace kdacheck {

/// For every kernel that keeps `contract`: |o as written - o| <= o[b,t,head] and |final_state as written - final_state| <=
/// final_state[n,head,row], for every element. Proved (properties/proved_bound.hpp), with the last rounding and the oracle's
/// radius, rounded up to eight bits. Infinite where nothing is known.
struct GoldenBound {
  std::string name, contract;
  std::vector<double> o;           ///< [B,T,HV]
  std::vector<double> final_state; ///< [N,HV,K]
};

/// One for fp32 arithmetic on inputs of this format, in any order of evaluation, and if the inputs are of 16 bits one for
/// matrix products and outputs in their format. DPLR: for chunks with the residual first.
std::vector<GoldenBound> golden_bounds(const Problem&, const InputFormats&, const Truth&);

} // namespace kdacheck
