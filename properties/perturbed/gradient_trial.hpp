#pragma once
// Perturbed forward and backward passes over a whole problem.

#include "../../kernels/contract.hpp"
#include "../../reference/truth.hpp"
#include "lanes.hpp"
#include "submodels.hpp"

#include <cstdint>
#include <functional>

namespace kdacheck {

/// What elements of a gradient are taken together over. `line`: a token and head of q, k, v, g, a, b; one number of beta, A_log, dt_bias;
/// a row of the initial state. `channel`: a channel of a head of q, k, v, g, a, b over the tokens of a sequence, [N,heads,channels]; a
/// column of the initial state, [N,HV,V].
enum class GradientGroup : std::uint8_t { line, channel };

/// Runs `batches` times eight draws of every submodel (order of evaluation, noise model) that the contract allows, or of the
/// first alone, and hands over, for every gradient and group, the mean square deviation from the truth in each draw.
void run_gradient_trials(const Contract&, const Problem&, const Truth&, std::uint64_t seed, int batches, Submodels,
                         const std::function<void(std::size_t submodel, GradientGroup, Input, std::int64_t group, Lanes mean_square)>&);

/// Largest deviation of the noise-free backward pass from the true gradients, relative to each gradient's largest element.
double noise_free_gradient_deviation(const Contract&, const Problem&, const Truth&);

} // namespace kdacheck
