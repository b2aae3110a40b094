#pragma once
// MLA with its stages exchangeable. Not for users of the layer: planted faults put a wrong stage in the place of a right one.

#include "causal_attention.hpp"
#include "mla.hpp"
#include "rms_norm.hpp"

#include <functional>

namespace kdacheck::modules {

struct MlaStages {
  std::function<std::vector<float>(const RmsNorm&, std::int64_t, std::span<const float>)> normalise = rms_norm;
  std::function<RmsNormGradients(const RmsNorm&, std::int64_t, std::span<const float>, std::span<const float>)> normalise_backward =
      rms_norm_backward;
  std::function<std::vector<float>(const HeadAttention&)> attend = causal_attention;
  std::function<HeadAttentionGradients(const HeadAttention&, std::span<const float>)> attend_backward = causal_attention_backward;
};

/// `mla` and `mla_backward` with those stages.
std::vector<float> run_mla(const MlaStages&, const Mla&, const MlaParameters&, const MlaInput&, MlaCache&);
MlaGradients run_mla_backward(const MlaStages&, const Mla&, const MlaParameters&, const MlaInput&, const MlaCache& before,
                              const MlaCotangents&);

/// Throws std::invalid_argument with a sentence for a layer, parameters, an input or a cache that do not fit together.
void check_mla(const Mla&);
void check_mla_call(const Mla&, const MlaParameters&, const MlaInput&, const MlaCache&);

} // namespace kdacheck::modules
