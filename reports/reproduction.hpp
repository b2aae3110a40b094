#pragma once
// Small programs that show one saved case by themselves.

#include "../properties/campaign.hpp"

#include <string>

namespace kdacheck {

/// Python with NumPy and safetensors: the token recurrence in float64 beside a kernel of the reader's own.
std::string python_reproduction(const Problem&, const CaseResult&);

/// C++ against this project's libraries: the kernel by name beside the certified truth.
std::string cpp_reproduction(const CaseResult&);

} // namespace kdacheck
