#pragma once
// The larger of two figures of error.

#include <cmath>

namespace kdacheck {

/// NaN is worse than any number, whichever comes first: std::max and a comparison forget it.
inline double worse_of(double x, double y) { return std::isnan(x) || x > y ? x : y; }

} // namespace kdacheck
