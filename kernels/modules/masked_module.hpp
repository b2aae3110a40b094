#pragma once
// Padding for modules that know none.

#include "module.hpp"

namespace kdacheck::modules {

/// The module on the rows that a call's mask keeps: outputs and gradients of other rows are 0.
Module masked(Module);

} // namespace kdacheck::modules
