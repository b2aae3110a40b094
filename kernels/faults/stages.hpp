#pragma once
// Where in the chunk algorithm a planted fault sits. Localisation names one of these for a failure.

#include "faults.hpp"

#include <optional>
#include <string_view>

namespace kdacheck {

/// Stages of a chunk, in the order of the forward pass. A fault of the backward pass has the stage whose reverse it
/// spoils: `inverse` where dZ = T^T dU goes wrong.
enum class Stage : std::uint8_t {
  inputs,      ///< which tokens, heads and channels are read, and the directions of keys (l2norm)
  gate_sum,    ///< log decay with its parameters, its sums inside a chunk, and their exponentials
  scores,      ///< Akk, Aqk
  inverse,     ///< (I + L)^-1
  residual,    ///< Z = beta (V - kd S), with v and beta, which enter there
  state_carry, ///< from chunk to chunk, from the initial and to the final state
  output,      ///< O = qd S + Aqk U, with q, which enters there, and how it is written
  call,        ///< around the algorithm: memory, repeatability, what one call leaves to the next
};
inline constexpr std::array all_stages{Stage::inputs,   Stage::gate_sum,    Stage::scores, Stage::inverse,
                                       Stage::residual, Stage::state_carry, Stage::output, Stage::call};

std::string_view name(Stage); ///< "gate sum"

/// The stage that the catalogue declares for a fault; nothing for `none`.
std::optional<Stage> stage_of(Fault);

} // namespace kdacheck
