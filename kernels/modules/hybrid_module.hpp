#pragma once
// The stack as a Module: input x [R,D], output y [R,D]; parameters and states of layer l under "layers.l." before their names in
// the layer's own module, the block's norm as "layers.l.norm".

#include "hybrid_stages.hpp"
#include "module.hpp"

namespace kdacheck::modules {

/// The kernel is copied. Throws std::invalid_argument where a sequence outgrows `capacity` tokens of an MLA layer's cache.
Module hybrid_module(const HybridStack&, const Kernel&, std::int64_t capacity, const HybridStages& = {});

/// "layers.2."
std::string layer_prefix(std::size_t layer);

/// The tensors of one layer under their own names.
NamedTensors layer_tensors(const NamedTensors&, std::size_t layer);

/// Parameters and states under the module's names, and back. Throws std::out_of_range for a name that is missing.
NamedTensors named_parameters(const HybridStack&, const HybridParameters&);
HybridParameters hybrid_parameters(const HybridStack&, const NamedTensors&);
NamedTensors named_state(const HybridStack&, std::int64_t sequences, std::int64_t capacity, const HybridState&);
HybridState hybrid_state(const HybridStack&, const NamedTensors&);

} // namespace kdacheck::modules
