#pragma once
// Bounds that a consumer of a golden case may hold a kernel to, stored with the case so that nobody has to derive them again.

#include "../properties/cases/recipe.hpp"
#include "../reference/truth.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace kdacheck {

/// |written - exact| <= values[group] for every element of tensor `of`; a group is what shares the leading indices that `shape` has.
struct BoundTensor {
  std::string of; ///< o, final_state, dq, dk ...
  std::vector<std::int64_t> shape;
  std::vector<double> values;
};

/// Holds for every kernel that keeps `contract`. Proved (properties/proved/proved_bound.hpp), with the last rounding and the oracle's
/// radius, rounded up to eight bits. Infinite where nothing is known.
struct GoldenBound {
  std::string name, contract;
  std::vector<BoundTensor> tensors;
};

/// Of o [B,T,HV] and final_state [N,HV,K], its rows: one for fp32 arithmetic on inputs of this format, in any order of evaluation, and
/// if the inputs are of 16 bits one for matrix products and outputs in their format. DPLR: for chunks with the residual first.
/// Of gradients, if `truth` has them: one for fp32 arithmetic, outputs and gradients where both passes go token by token
/// (order=recurrence), by token and head, row of the initial state, and element of A_log and dt_bias. A gradient of which nothing is
/// known anywhere is left out, and so are those of q and k under an l2norm.
std::vector<GoldenBound> golden_bounds(const Problem&, const InputFormats&, const Truth&);

} // namespace kdacheck
