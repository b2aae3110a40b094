#pragma once
// The layer's output normalisation: RMSNorm over the value channels of each head, times a sigmoid gate.
//
//   r = 1 / sqrt(mean_j o_j^2 + epsilon)       z_j = w_j o_j r sigmoid(gate_j)       per token and head, w shared by the heads
//
// Source: Kimi Linear technical report (arXiv 2510.26692), section 4; epsilon under the root, as in Zhang and Sennrich 2019.

#include <cstdint>
#include <span>
#include <vector>

namespace kdacheck::modules {

struct GatedNorm {
  std::int64_t heads = 1, V = 1;
  float epsilon = 1e-5f;
  std::span<const float> weight; ///< [V]
};

/// z of o and gate logits, all [rows,heads,V], in fp32.
std::vector<float> gated_norm(const GatedNorm&, std::int64_t rows, std::span<const float> o, std::span<const float> gate);

struct GatedNormGradients {
  std::vector<float> o, gate; ///< [rows,heads,V]
  std::vector<float> weight;  ///< [V]
};

/// For the cotangent of z. The sum over rows and heads for the weight runs in fp64, in order: it repeats bit for bit.
GatedNormGradients gated_norm_backward(const GatedNorm&, std::int64_t rows, std::span<const float> o, std::span<const float> gate,
                                       std::span<const float> d_z);

} // namespace kdacheck::modules
