#pragma once
// Small programs that show one saved case by themselves.

#include "../properties/campaign.hpp"
#include "kernel_sources.hpp"

#include <string>

namespace kdacheck {

/// Python with NumPy and safetensors: the token recurrence in float64 beside a kernel of the reader's own. Of a law of gradients those
/// of the case's loss, by autograd.
std::string python_reproduction(const Problem&, const CaseResult&);

/// C++ against this project's libraries: the kernel by name beside the certified truth, in the law's direction; status 1 if it fails,
/// 2 if there is no such kernel.
std::string cpp_reproduction(const CaseResult&, const KernelSources& = {});

} // namespace kdacheck
