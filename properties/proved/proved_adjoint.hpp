#pragma once
// Bound on the error of gradients that no kernel which keeps its contract can exceed, for the token recurrence: derived in
// proved_adjoint.cpp.

#include "../budget_head.hpp"
#include "proved_units.hpp"

#include <cstdint>
#include <functional>
#include <vector>

namespace kdacheck {

/// Of one head: sizes of the exact gradients and the largest errors of their elements, before any is summed over a group, taken
/// through a gate or a norm, or rounded to its stored format.
struct AdjointBound {
  std::vector<double> q, k, a, b, g;          ///< [tokens,K] largest errors; a, b: DPLR
  std::vector<double> q_size, k_size, g_size; ///< [tokens,K] |exact|
  std::vector<double> v;                      ///< [tokens] the largest over the columns
  std::vector<double> beta, beta_size;        ///< [tokens]
  std::vector<double> state;                  ///< [K] of d initial_state, the largest over the columns
};

/// `d_o` [tokens,V] and `d_state` [K,V] are the cotangents, either of them empty for zeros. `interval`: tokens between two stored states.
/// `states` [tokens + 1,V], if given: what each state errs by, column by column; otherwise what the same recurrence leaves it wrong by.
AdjointBound bound_adjoint(const ProvedUnits&, const Head&, double gate_floor, std::int64_t interval, const std::vector<double>& d_o,
                           const std::vector<double>& d_state, const std::vector<double>* states = nullptr);

/// The same of a head of KDA that is taken through the general rule.
AdjointBound bound_adjoint_through_general(const ProvedUnits&, const Head&, double gate_floor, std::int64_t interval,
                                           const std::vector<double>& d_o, const std::vector<double>& d_state,
                                           const std::vector<double>* states = nullptr);

} // namespace kdacheck
