#pragma once
// The KimiDeltaAttention layer as a Module: input x [R,D], output y [R,D], states q_conv, k_conv, v_conv and memory,
// parameters under the names of KdaLayerParameters.

#include "kda_layer_stages.hpp"
#include "module.hpp"

namespace kdacheck::modules {

/// The kernel is copied. Stages other than the right ones make a faulty layer.
Module kda_layer_module(const KdaLayer&, const Kernel&, const LayerStages& = {});

/// A call's parameters and states as the layer's own types, and back. Throws std::out_of_range for a name that is missing.
KdaLayerParameters layer_parameters(const KdaLayer&, const NamedTensors&);
NamedTensors named_parameters(const KdaLayer&, const KdaLayerParameters&);
KdaLayerState layer_state(const NamedTensors&);
NamedTensors named_state(const KdaLayer&, std::int64_t sequences, const KdaLayerState&);

} // namespace kdacheck::modules
