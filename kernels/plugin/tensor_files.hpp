#pragma once
// A kernel call as safetensors files: what a worker program reads and what it writes. Names and metadata are those of
// recorded activations (golden/recorded.hpp).

#include "../../reference/safetensors.hpp"
#include "../kernel.hpp"

#include <filesystem>
#include <limits>
#include <optional>
#include <vector>

namespace kdacheck::plugin {

/// The bytes of a file that another program may have replaced: nothing if it is no regular file, cannot be read or is larger
/// than `limit`. Never waits.
std::optional<std::vector<std::byte>> bytes_of_file(const std::filesystem::path&,
                                                    std::size_t limit = std::numeric_limits<std::size_t>::max());

/// Writes inputs and cotangents (do, dht), densely packed, the state always as [N,HV,K,V].
void write_call(const std::filesystem::path&, const Inputs&, const Cotangents&, bool state_v_first);

/// Copies the tensors `o` and `final_state` of a file into the outputs. Throws KernelCrashed with a sentence if one is
/// missing, not a floating-point tensor or of the wrong shape, or if the file is malformed.
void read_outputs(const std::filesystem::path&, const Outputs&, bool state_v_first);

/// The same of a table that has been read.
void read_outputs(const TensorTable&, const Outputs&, bool state_v_first);

/// The same for gradients: dq dk dv dg dbeta da db dA_log ddt_bias dinitial_state.
void read_gradients(const std::filesystem::path&, const GradientOutputs&, bool state_v_first);

} // namespace kdacheck::plugin
