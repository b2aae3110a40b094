#pragma once
// The stack with its stages exchangeable. Not for its users: planted faults put a wrong stage in the place of a right one.

#include "hybrid.hpp"
#include "kda_layer_stages.hpp"
#include "mla_stages.hpp"

#include <functional>
#include <utility>

namespace kdacheck::modules {

struct HybridStages {
  std::function<std::vector<float>(const RmsNorm&, std::int64_t, std::span<const float>)> normalise = rms_norm;
  /// h of the next block from h, RMSNorm(h) and what the mixer made of that.
  std::function<std::vector<float>(std::vector<float> h, const std::vector<float>& normalised, const std::vector<float>& mixed)> join =
      [](std::vector<float> h, const std::vector<float>&, const std::vector<float>& mixed) {
        for (std::size_t i = 0; i < h.size(); ++i) h[i] += mixed[i];
        return h;
      };
  bool gradient_past_the_mixer = true; ///< what the residual connection itself hands back
};

std::vector<float> run_hybrid(const HybridStages&, const HybridStack&, const HybridParameters&, const Kernel&, const KdaLayerInput&,
                              HybridState&);
HybridGradients run_hybrid_backward(const HybridStages&, const HybridStack&, const HybridParameters&, const Kernel&, const KdaLayerInput&,
                                    const HybridState& before, const HybridCotangents&);

} // namespace kdacheck::modules
