#pragma once
// A problem walked through in decode steps, the state moving on in place.

#include "perturbed/trial.hpp"

namespace kdacheck {

/// Results of the kernel's decode steps over all tokens of an unpacked problem, in steps of sizes that the trial picks from
/// contract.decode, with gaps between rows in half of the cases where the contract takes them. Ends the trial if a step is outside the
/// kernel's domain, if there is no decode step, or if its sizes cannot add up to the problem's length.
Run decode_chain(Trial&, const Problem&);

} // namespace kdacheck
