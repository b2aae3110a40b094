#pragma once
// Golden tensors of modules: a call with its loss, and its exact outputs, states and gradients, for implementations elsewhere.
//
// One safetensors file per module and regime, MODULE.REGIME.SEED.safetensors. fp32: cu_seqlens (int64), call.NAME, parameter.NAME,
// state.NAME, cotangent.NAME, cotangent_state.NAME; fp64: output.NAME, next_state.NAME, gradient.NAME, gradient_state.NAME,
// computed in 64-bit long double. Metadata: module, summary (sizes and form), regime, seed, source.

#include "../properties/modules/module_suite.hpp"

#include <filesystem>
#include <string>
#include <vector>

namespace kdacheck {

/// Where a case lies in a folder.
std::filesystem::path module_golden_path(const ModuleSuite&, std::string_view regime, std::uint64_t seed,
                                         const std::filesystem::path& folder);

/// Writes the case. Throws FileTrouble.
void write_module_golden(const ModuleSuite&, std::string_view regime, std::uint64_t seed, const std::filesystem::path&);

/// Draws and computes the file's case again. Returns a sentence for each tensor that differs: what was drawn by a bit, what was
/// computed by more than 53 and 64 bits of precision differ in that tensor. Throws BadFile for what is no such file.
std::vector<std::string> module_golden_differences(const std::filesystem::path&);

} // namespace kdacheck
