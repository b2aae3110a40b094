#pragma once
// Judges kernels on recorded tensors: the laws that need no recipe.

#include "../properties/campaign.hpp"

namespace kdacheck {

/// One result per law: agreement with the oracle, clean buffers, repeated runs, and gradients where the recording has
/// cotangents and the kernel a backward pass. `path` goes into the replay token.
std::vector<CaseResult> recorded_cases(const Kernel&, const Problem& recorded, const std::string& path, Judge&);

/// The path of a replay token of a recorded case ("KERNEL:PROPERTY:@PATH"), or nothing.
std::optional<std::string> recorded_path(std::string_view token);

} // namespace kdacheck
