#pragma once
// Kernels called for one token at a time with the state handed on: every step is then known exactly, and what its
// roundings may do to it can be bounded rigorously. For laws about the transition itself.

#include "../reference/spectral_bounds.hpp"
#include "perturbed/trial.hpp"

#include <cstdint>
#include <functional>
#include <vector>

namespace kdacheck {

/// One head of one sequence in one step: `after` is what the kernel made of `before`, both [K,V].
struct Step {
  std::int64_t sequence = 0, head = 0, token = 0, K = 0, V = 0;
  Rule rule = Rule::kda;
  Transition<double> kda;      ///< alpha (correctly rounded exp), k, beta
  DplrTransition<double> dplr; ///< of Rule::dplr: d, a, b; its key is kda.k
  std::vector<double> v;       ///< [V]
  std::vector<double> before, after;
  std::vector<double> allowed; ///< [K,V]: |after - exact| of any kernel that keeps its contract, to first order in u, rounded up

  double at(const std::vector<double>& matrix, std::int64_t i, std::int64_t j) const { return matrix[static_cast<std::size_t>(i * V + j)]; }
  Place place(std::int64_t row = -1, std::int64_t channel = -1) const;
};

/// Runs the kernel over tokens first, first + 1, ... of every sequence of an unpacked problem whose gates and strengths
/// are plain, one call per token, and shows every head of every step.
void for_each_step(Trial&, const Problem&, std::int64_t first, std::int64_t count, const std::function<void(const Step&)>& visit);

} // namespace kdacheck
