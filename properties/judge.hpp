#pragma once
// Compares what a kernel wrote with what is true, within what its contract allows.

#include "../kernels/contract.hpp"
#include "../reference/truth.hpp"
#include "budget.hpp"
#include "confidence.hpp"
#include "run.hpp"
#include "verdict.hpp"

#include <cstdint>
#include <memory>

namespace kdacheck {

/// Computes truths and budgets once per (problem, contract) and judges runs by them. Safe to use from several threads.
/// The truth escalates its arithmetic until its radius is small against the budget everywhere (confidence.hpp), or nothing is left.
class Judge {
public:
  /// quick: what is allowed is looked for no further than a case needs to pass. full: by all that the contract allows, always, so that
  /// the `bound_util` of what passes is the case's own: for a search.
  enum class Screening : std::uint8_t { quick, full };
  explicit Judge(Screening = Screening::quick);
  ~Judge();

  /// Verdict on o and, if the run has it, final_state: per token and head, channel, state row and column. Non-finite
  /// values, wrong sizes and a refusal are failures. A statistical failure is confirmed with fresh noise and more draws
  /// before it counts; a `Finding` passed carries the largest bound_util.
  Finding forward(const Contract&, const Problem&, const Run&);

  /// Verdict on every gradient that the run has.
  Finding backward(const Contract&, const Problem&, const Run&);

  std::shared_ptr<const Truth> forward_truth(const Problem&);
  std::shared_ptr<const Truth> gradient_truth(const Problem&);
  /// The budget that a comparison with so many draws is made with.
  std::shared_ptr<const Budget> forward_budget(const Contract&, const Problem&, int draws = screening_draws);
  std::shared_ptr<const Budget> gradient_budget(const Contract&, const Problem&, int draws = screening_draws);

private:
  struct Cache;
  std::unique_ptr<Cache> cache_;
};

} // namespace kdacheck
