#pragma once
// What one way of looking for the stage says.

#include "../../kernels/faults/stages.hpp"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

namespace kdacheck {

/// `confidence` is in [0,1]; 0 with no stage: cannot tell, and `grounds` says why.
struct StageOpinion {
  std::optional<Stage> stage;
  double confidence = 0;
  std::string grounds; ///< one clause
  bool fitted = true;  ///< false: the case is too large to run every planted fault on it
};

inline StageOpinion unclear(std::string why = {}) { return {.stage = {}, .confidence = 0, .grounds = std::move(why)}; }
inline StageOpinion says(Stage stage, double confidence, std::string why) {
  return {.stage = stage, .confidence = std::clamp(confidence, 0.0, 1.0), .grounds = std::move(why)};
}

} // namespace kdacheck
