#pragma once
// One verb for one kernel: is it right on this case, in its values, its gradients and on exceptional values?

#include "cases/recipe.hpp"
#include "judge.hpp"

namespace kdacheck {

/// The gravest of, each judged within what the contract allows or exactly:
///   value          o and the final state against the certified truth, and finite wherever it is
///   gradients      every gradient against the certified truth, finite, exactly zero where nothing can flow, and of the
///                  forward pass that the kernel itself runs (kernels with a backward pass)
///   exceptions     a NaN in a token or in a loss stays where causality, heads and channels leave it
/// The recipe is fitted to the contract first; not_supported if the domain leaves it out.
Finding expect_right(const Kernel&, const Recipe&, Judge&);

} // namespace kdacheck
