#pragma once
// (I + L)^{-1} for strictly lower L: forward substitution, or one of the ways in which it goes wrong.

#include "faults.hpp"

#include <vector>

namespace kdacheck::faults {

/// L [n,n] inside rows of length `stride`, overwritten by T = (I + L)^{-1}; substitution keeps its entries in the format `solve`.
void invert(std::vector<float>& matrix, std::int64_t n, std::int64_t stride, Fault, Format solve);

} // namespace kdacheck::faults
