#pragma once
// Regimes of modules that take KDA's state one step on (state manager, transition): what a step forgets, erases and writes.

#include "drawn_tensors.hpp"
#include "module_suite.hpp"

namespace kdacheck {

inline std::vector<ModuleRegime> step_regimes() {
  return {{"usual", "alpha from 0.6 to 1"},
          {"heavy-forgetting", "alpha to 1e-3"},
          {"minimal-forgetting", "alpha above 0.9999"},
          {"reflections", "beta to 2: negative eigenvalues"},
          {"long-keys", "|k| beyond 1: the state may grow"}};
}

/// alpha [R,H,K], k [R,H,K], beta [R,H] and v [R,H,V] of a regime; streams 1 to 4.
inline modules::NamedTensors step_inputs(std::string_view regime, std::int64_t R, std::int64_t H, std::int64_t K, std::int64_t V,
                                         std::uint64_t seed) {
  double least = 0.6, most = 1, beta = 1, size = 0.7;
  if (regime == "heavy-forgetting") least = 0, most = 1e-3;
  if (regime == "minimal-forgetting") least = 0.9999;
  if (regime == "reflections") beta = 2;
  if (regime == "long-keys") size = 1.5;
  return {drawn_tensor("alpha", {R, H, K}, least, most, seed, 1), drawn_tensor("k", {R, H, K}, -size, size, seed, 2),
          drawn_tensor("beta", {R, H}, 0, beta, seed, 3), drawn_tensor("v", {R, H, V}, -1, 1, seed, 4)};
}

} // namespace kdacheck
