#pragma once
// How large an error fp32 allows a module on a given call: the one place that derives the modules' tolerances.
//
// The oracle runs in perturbed fp32 (perturbed_number.hpp), several times in both noise models and in every order of
// evaluation that the module may use. The spread of a tensor's rows about the truth, root mean square over a row, is the
// largest sigma of these models; a row of what the module wrote may err by z sigma, z and the numbers of draws from
// confidence.hpp: few draws and z of a known sigma pass or suspect, more of them with fresh noise and z for as many draws
// refuse, clear or leave open, as judge.hpp has it for kernels. The truth is the oracle in 64 bits; where it differs from the
// oracle in 53 bits by more than a hundredth of the bound, the case is inconclusive.

#include "module_suite.hpp"

namespace kdacheck {

/// Where the pieces of a sequence of that many tokens end, the last at its end.
using Cuts = std::function<std::vector<std::int64_t>(std::int64_t length)>;

/// With cuts, the perturbed runs go in the same pieces, states rounded to fp32 between them: what a module counts from a
/// call's first token (chunks, for one) errs differently in pieces. The truth does not depend on them.
/// Judges outputs and states (gradients = false), or the gradients of inputs, parameters and states. NaN fails.
Finding judge_module(const ModuleCase&, const modules::ModuleResult&, std::uint64_t noise_seed, const Cuts& = {});
Finding judge_module_gradients(const ModuleCase&, const modules::ModuleGradients&, std::uint64_t noise_seed, const Cuts& = {});

} // namespace kdacheck
