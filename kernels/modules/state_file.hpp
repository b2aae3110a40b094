#pragma once
// States of a batch in a file: one safetensors tensor `state` [B,H,K,V] F32, with the step and a SHA-256 over shape, step
// and numbers in its metadata.

#include "dplr_transition.hpp"

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

namespace kdacheck::modules {

/// Whole under its name or not there. Throws FileTrouble.
void write_states(const std::filesystem::path&, const StateShape&, std::int64_t step, std::span<const float> states);

struct StoredStates {
  std::int64_t step = 0;
  std::vector<float> states;
};

/// Throws BadFile if it cannot be read, is damaged in any byte that counts, or holds another shape.
StoredStates read_states(const std::filesystem::path&, const StateShape&);

} // namespace kdacheck::modules
