#pragma once
// Cutting and joining the calls of modules: sequences apart, tokens before and after a place.

#include "../../kernels/modules/module.hpp"

#include <cstdint>
#include <vector>

namespace kdacheck {

/// Rows [first, last) of every tensor.
modules::NamedTensors rows_of(const modules::NamedTensors&, std::int64_t first, std::int64_t last);

/// The tensors one below the other.
modules::NamedTensors joined(const std::vector<modules::NamedTensors>&);

/// Tokens [first, last) of sequence n alone, started from `states` ([1,...] each, or none).
modules::ModuleCall part_of(const modules::ModuleCall&, std::int64_t n, std::int64_t first, std::int64_t last,
                            modules::NamedTensors states);

/// State of sequence n, [1,...] each; none where the call has none.
modules::NamedTensors state_of(const modules::NamedTensors&, std::int64_t n);

} // namespace kdacheck
