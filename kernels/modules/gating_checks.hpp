#pragma once
// What a call of the gating module must be like.

#include "gating.hpp"

namespace kdacheck::modules {

/// Throws std::invalid_argument for sizes that are not positive, a form that is none of the module's, a bad lower bound.
void check_module(const Gating&);

/// Throws std::invalid_argument for parameters or x of the wrong size, and for parameters that are not finite. x is not read.
void check_gating_call(const Gating&, const GatingParameters&, const GatingInput&);

/// Throws std::invalid_argument unless the tensor has that many numbers, or is empty and may be.
void check_count(const char* tensor, const char* shape, std::size_t count, std::int64_t wanted, bool may_be_absent);

/// Throws std::invalid_argument for NaN or infinity, naming the tensor and the first such place.
void check_finite(const char* tensor, std::span<const float> values);

} // namespace kdacheck::modules
