#pragma once
// The layer on packed tokens, stage by stage. Not for users of the layer: kda_layer.cpp and its backward pass share it, and
// planted faults put a wrong stage in the place of a right one.

#include "gated_norm.hpp"
#include "kda_core.hpp"
#include "kda_layer.hpp"
#include "short_convolution.hpp"

namespace kdacheck::modules {

struct LayerStages {
  std::function<Convolved(const ShortConvolution&, std::span<const std::int64_t>, std::span<const float>, std::span<const float>)>
      convolve = modules::convolve;
  std::function<ConvolutionGradients(const ShortConvolution&, std::span<const std::int64_t>, std::span<const float>, std::span<const float>,
                                     std::span<const float>, std::span<const float>, std::span<const float>)>
      convolve_backward = modules::convolve_backward;
  std::function<std::vector<float>(const GatedNorm&, std::int64_t, std::span<const float>, std::span<const float>)> gated_norm =
      modules::gated_norm;
  std::function<GatedNormGradients(const GatedNorm&, std::int64_t, std::span<const float>, std::span<const float>, std::span<const float>)>
      gated_norm_backward = modules::gated_norm_backward;
};

/// R tokens that are there, sequence after sequence.
struct PackedTokens {
  std::vector<std::int64_t> cu_seqlens;
  std::span<const float> x; ///< [R,D]
  std::int64_t rows() const { return cu_seqlens.back(); }
  std::int64_t sequences() const { return static_cast<std::int64_t>(cu_seqlens.size()) - 1; }
};

/// What the layer computes on its way; all [R,...].
struct LayerTrace {
  std::vector<float> q_in, k_in, v_in; ///< inputs of the convolutions
  Convolved q, k, v;
  std::vector<float> log_decay, beta;
  std::vector<float> gate_hidden, gate; ///< of the output gate
  CoreResult core;
  std::vector<float> z, y;
};

LayerTrace trace_layer(const LayerStages&, const KdaLayer&, const KdaLayerParameters&, const Kernel&, const PackedTokens&,
                       const KdaLayerState&);

/// d_y [R,D].
KdaLayerGradients trace_layer_backward(const LayerStages&, const KdaLayer&, const KdaLayerParameters&, const Kernel&, const PackedTokens&,
                                       const KdaLayerState&, const LayerTrace&, std::span<const float> d_y, const KdaLayerState& d_final);

/// The convolution of q, k or v; the norm; the gate's module and parameters; the core's tokens.
ShortConvolution convolution_of(const KdaLayer&, std::int64_t channels, std::span<const float> weight, std::span<const float> bias);
GatedNorm norm_of(const KdaLayer&, const KdaLayerParameters&);
GatingParameters gate_parameters(const KdaLayerParameters&);
CoreTokens core_tokens(const KdaLayer&, const PackedTokens&, const KdaLayerState&, const LayerTrace&);

/// `kda_layer` and `kda_layer_backward` with those stages.
KdaLayerOutput run_layer(const LayerStages&, const KdaLayer&, const KdaLayerParameters&, const Kernel&, const KdaLayerInput&,
                         const KdaLayerState&);
KdaLayerGradients run_layer_backward(const LayerStages&, const KdaLayer&, const KdaLayerParameters&, const Kernel&, const KdaLayerInput&,
                                     const KdaLayerState&, const KdaLayerCotangents&);

/// Throws std::invalid_argument with a sentence for a layer, parameters, an input or states that do not fit together.
void check_layer(const KdaLayer&);
void check_layer_call(const KdaLayer&, const KdaLayerParameters&, const KdaLayerInput&, const KdaLayerState&);

} // namespace kdacheck::modules
