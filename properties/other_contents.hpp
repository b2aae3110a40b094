#pragma once
// Another problem for the same memory.

#include "perturbed/trial.hpp"

namespace kdacheck {

/// The problem of the recipe (by default the trial's) with another seed and, where it is packed, other lengths: of the same sizes and
/// tensors, every number another. Ends the trial if the kernel's domain leaves it out.
Problem with_other_contents(const Trial&, const Recipe&);
Problem with_other_contents(const Trial&);

} // namespace kdacheck
