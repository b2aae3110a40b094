#pragma once
// The verb of whole_kernel.hpp for a module: is it right on this case, in its values, its gradients and on exceptional values?

#include "module_suite.hpp"

namespace kdacheck {

/// The gravest finding of all laws of the module's suite on the case that `regime` and `seed` draw: outputs and states, the
/// gradients of inputs, states and every parameter, each within what fp32 allows; a NaN that stays in its place; and what else
/// the suite holds the module to. `fault`: one of the suite's, planted. not_supported if no law applies.
Finding expect_right(const ModuleSuite&, std::string_view regime, std::uint64_t seed, std::string_view fault = {});

/// The same for any module that is to be what the case says: its call, its loss, its oracle.
Finding expect_right(const ModuleCase&, std::span<const ModuleLaw>, std::uint64_t seed);

} // namespace kdacheck
