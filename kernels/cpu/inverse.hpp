#pragma once
// The triangular solve of a chunk, by forward substitution in fp32, never by a series.

#include "operand.hpp"

#include <cstdint>

namespace kdacheck::cpu {

/// T = (I + L)^{-1}, lower rows rounded as operands; L is the strictly lower part of a matrix of that stride.
void invert_unit_lower(OperandFormat, std::int64_t n, const float* L, std::int64_t stride, float* T);

/// rows [n, width] := (I + L)^{-1} rows: substituted if T is null, else a product of T with the rounded rows, which
/// `scratch` [n, width] takes.
void apply_inverse(OperandFormat, std::int64_t n, std::int64_t width, const float* L, const float* T, std::int64_t stride, float* rows,
                   float* scratch);

/// The same with the transposed inverse.
void apply_inverse_transposed(OperandFormat, std::int64_t n, std::int64_t width, const float* L, const float* T, std::int64_t stride,
                              float* rows, float* scratch);

} // namespace kdacheck::cpu
