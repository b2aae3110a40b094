#pragma once
// Golden tensors of modules: a call with its loss, and its exact outputs, states and gradients, for implementations elsewhere.
//
// One safetensors file per module and regime, MODULE.REGIME.SEED.safetensors. fp32: cu_seqlens (int64), call.NAME, parameter.NAME,
// state.NAME, cotangent.NAME, cotangent_state.NAME; fp64: output.NAME, next_state.NAME, gradient.NAME, gradient_state.NAME,
// computed in 64-bit long double. Metadata: module, summary (sizes and form), regime, seed, source.

#include "../properties/modules/module_suite.hpp"
#include "case_difference.hpp"

#include <filesystem>
#include <string>

namespace kdacheck {

/// What its file is called.
std::string module_golden_name(const ModuleSuite&, std::string_view regime, std::uint64_t seed);

/// Writes the case. Throws FileTrouble.
void write_module_golden(const ModuleSuite&, std::string_view regime, std::uint64_t seed, const std::filesystem::path&);

/// Draws and computes the case of a set's file again, after it was held against the index (unless that is null). It is damaged if it is not
/// what the index promises, or no such file; else there is a sentence for each tensor that differs: what was drawn by a bit, what was
/// computed by more than 53 and 64 bits of precision differ in that tensor. The file is named as its case, or waits as NAME.new.
CaseDifference difference_of_module(const std::filesystem::path&, const SetIndex* index);

} // namespace kdacheck
