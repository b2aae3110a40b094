#pragma once
// A right module with something wrong before, after or behind it.

#include "../modules/module.hpp"

#include <functional>

namespace kdacheck {

using ChangeCall = std::function<void(modules::ModuleCall&)>;
using ChangeResult = std::function<void(modules::ModuleResult&, const modules::ModuleCall&)>;
using ChangeGradients = std::function<void(modules::ModuleGradients&, const modules::ModuleCall&)>;

/// Changes the call that the module sees, its result, its gradients; empty functions change nothing.
modules::Module wrapped(modules::Module right, ChangeCall before, ChangeResult after = {}, ChangeGradients gradients = {});

/// [.., K, V] read as [.., V, K], the extents kept.
void transpose_memory(modules::NamedTensor& memory);

} // namespace kdacheck
