#pragma once
// KimiDeltaAttention layers that are wrong on purpose: a right layer with one stage, state or gradient exchanged.
// Origins: "class" marks a fault of a kind that has been reported of other layers, without a link to one report.

#include "../modules/kda_layer_module.hpp"

#include <span>
#include <string_view>

namespace kdacheck {

struct LayerFaultInfo {
  std::string_view name, origin, what;
};

std::span<const LayerFaultInfo> layer_faults();

/// The layer with the fault of that name. Throws std::out_of_range for an unknown one.
modules::Module faulty_layer(std::string_view fault, const modules::KdaLayer&, const Kernel&);

} // namespace kdacheck
