#pragma once
// Latent attention layers that are wrong on purpose: a right layer with one stage, its cache or a gradient exchanged.
// Origins as in layer_faults.hpp.

#include "../modules/mla_module.hpp"

#include <span>
#include <string_view>

namespace kdacheck {

struct MlaFaultInfo {
  std::string_view name, origin, what;
};

std::span<const MlaFaultInfo> mla_faults();

/// The layer with the fault of that name. Throws std::out_of_range for an unknown one.
modules::Module faulty_mla(std::string_view fault, const modules::Mla&, std::int64_t capacity);

} // namespace kdacheck
