#pragma once
// Counts how many elements of an Enclosed tensor lie outside their radius of an Arb truth.

#include "../truth.hpp"
#include "arb_dual.hpp"

#include <algorithm>
#include <cmath>

namespace kdacheck::test {

struct Tally {
  std::size_t elements = 0;
  std::size_t outside = 0;
  std::size_t unknown = 0; ///< of infinite radius
  double worst = 0;        ///< largest distance / radius

  /// `shrink` scales the radius: below 1 it plants a wrong bound.
  void count(const Enclosed& tensor, std::size_t at, const Arb& exact, double shrink = 1) {
    const double error = distance(exact, tensor.value[at], tensor.low.empty() ? 0 : tensor.low[at]);
    const double radius = tensor.radius[at] * shrink;
    ++elements;
    if (!(radius < INFINITY)) ++unknown;
    if (!(error <= radius)) ++outside;
    if (!(error / radius <= worst) && error > 0) worst = error / radius;
  }
};

} // namespace kdacheck::test
