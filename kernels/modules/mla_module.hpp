#pragma once
// MLA as a Module: input x [R,D], output y [R,D], parameters under the names of MlaParameters. A module's states have one
// shape whatever they hold, so the cache is `latent` [N,capacity,rank + K_shared], zeros behind the `length` [N] of its
// sequences.

#include "mla_stages.hpp"
#include "module.hpp"

namespace kdacheck::modules {

/// Throws std::invalid_argument where a sequence outgrows `capacity` tokens. Stages other than the right ones make a faulty layer.
Module mla_module(const Mla&, std::int64_t capacity, const MlaStages& = {});

/// A call's parameters and states as the layer's own types, and back. Throws std::out_of_range for a name that is missing.
MlaParameters mla_parameters(const Mla&, const NamedTensors&);
NamedTensors named_parameters(const Mla&, const MlaParameters&);
MlaCache mla_cache(const Mla&, const NamedTensors& states);
NamedTensors named_cache(const Mla&, std::int64_t capacity, const MlaCache&);

/// Rows [n,capacity,..] of a padded tensor that a cache of those lengths has, and back.
std::vector<std::vector<float>> rows_in_use(const Mla&, const NamedTensor& latent, const std::vector<std::int64_t>& lengths);

} // namespace kdacheck::modules
