#pragma once
// Error of a run in units of the proved bound alone.

#include "../../kernels/contract.hpp"
#include "../../reference/truth.hpp"
#include "../budget.hpp"
#include "../run.hpp"

namespace kdacheck {

/// One case with what is true of it and what a contract allows at most; any number of runs can be measured on it. The
/// problem must outlive it.
class ProvedCase {
public:
  /// `backward`: of gradients.
  ProvedCase(const Contract&, const Problem&, bool backward = false);

  /// Largest excess error over proved bound of o and of the final state, or of all gradients; 0 where the bound is nowhere finite or
  /// nothing errs, infinite for a NaN under a finite bound.
  double ratio(const Run&) const;

  const ProvedBound& bound() const { return budget_.proved; }

private:
  Contract contract_;
  const Problem& problem_;
  Truth truth_;
  Budget budget_;
  bool backward_;
};

} // namespace kdacheck
