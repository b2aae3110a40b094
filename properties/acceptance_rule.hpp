#pragma once
// Acceptance rules as others write them by hand, to be measured against planted faults beside the gate.

#include "../kernels/kernel.hpp"
#include "../reference/truth.hpp"
#include "run.hpp"

#include <string>
#include <string_view>

namespace kdacheck {

/// `allclose:atol=1e-2,rtol=1e-2`  |x - y| <= atol + rtol |y| for every element; one that is left out is 0
/// `rms_rel:0.005`                 rms(x - y) <= 0.005 rms(y), per tensor
/// `pcc:0.999`                     Pearson's correlation of x and y at least 0.999, per tensor
/// `twice_ref`                     rms(x - y) <= 2 rms(r - y), r the correct kernel of the same contract, per tensor
struct AcceptanceRule {
  enum class Kind : std::uint8_t { allclose, rms_rel, pcc, twice_ref } kind = Kind::rms_rel;
  double absolute = 0, relative = 0, threshold = 0;
};

/// Throws UsageError with one sentence.
AcceptanceRule parse_rule(std::string_view text);

/// Whether the rule lets the run pass: o and final state against the truth. `reference` is a correct kernel's run (used
/// by twice_ref only). A value that is not finite is refused by every rule, as in practice.
bool accepts(const AcceptanceRule&, const Run&, const Truth&, const Run& reference);

/// The same for every gradient that the run has.
bool accepts_gradients(const AcceptanceRule&, const Run&, const Truth&, const Run& reference);

} // namespace kdacheck
