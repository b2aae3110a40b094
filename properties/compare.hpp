#pragma once
// Measures what a kernel wrote against the truth, group by group, in units of its budget.

#include "../kernels/contract.hpp"
#include "../reference/truth.hpp"
#include "budget.hpp"
#include "confidence.hpp"
#include "run.hpp"
#include "verdict.hpp"

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace kdacheck {

/// What the groups of one kind leave of z, by what sets it: the constant (least_factor) or the quantile of confidence_factor.
struct Margin {
  std::int64_t groups = 0;                 ///< with an error, and a finite sigma
  double largest = 0;                      ///< error / sigma where the constant sets z (the truth's radius taken off): no less would do
  double quantile_share = 0, quantile = 0; ///< largest error / (z sigma) where the quantile sets z, and z there
};

/// Worst utilisations of one comparison. The error of an element is its excess: |written - true| less half an ulp of
/// what was written, so that the last rounding, which every kernel makes, is not counted. A group's error is the root
/// mean square of its elements' excess; its bound is z sigma plus the truth's own radius.
struct Comparison {
  double screening = 0;        ///< largest error / bound with z of a known sigma: what bound_util reports
  double deciding = 0;         ///< the same with z widened for the finite number of draws; above 1 refuses
  double proved = 0;           ///< largest error / proved bound; above 1 proves a fault (0: no bound was derived)
  double radius_share = 0;     ///< largest radius / (z sigma): above 1e-2 the truth is not precise enough
  bool overflow = false;       ///< something errs where the contract's own range overflows: nothing bounds it
  bool non_finite = false;     ///< something is not finite where it must be
  Place place;                 ///< of the worst group, at its worst element
  std::string group;           ///< "token", "channel", "state row", "state column" of the worst
  double error = 0, bound = 0; ///< of the worst group
  Metrics metrics;
  std::array<Margin, all_groups.size()> margin{}; ///< by Group
};

/// The outputs must have the right sizes.
Comparison compare_forward(const Contract&, const Problem&, const Truth&, const Budget&, const Run&);

/// Error / bound of o per token and value head, [B*T*HV], by the same measure: where along a sequence the error lies. Infinite
/// where something is not finite; 0 where the contract's own range overflows. The run's o must have the right size.
std::vector<double> token_utilisation(const Contract&, const Problem&, const Truth&, const Budget&, const Run&);

/// The run's gradients must have the right sizes; those it has not are left out.
Comparison compare_backward(const Contract&, const Problem&, const Truth&, const Budget&, const Run&);

} // namespace kdacheck
