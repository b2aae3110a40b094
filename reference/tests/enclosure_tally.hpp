#pragma once
// Counts how many elements of an Enclosed tensor lie outside their radius of an Arb truth, for every arithmetic.

#include "../certified_tiers.hpp"
#include "../truth.hpp"
#include "arb_dual.hpp"

#include <algorithm>
#include <cmath>
#include <string>

namespace kdacheck::test {

struct Tally {
  std::size_t elements = 0;
  std::size_t outside = 0;
  std::size_t unknown = 0; ///< of infinite radius
  double worst = 0;        ///< largest distance / radius
  std::string first;       ///< where the first one lies outside

  /// `shrink` scales the radius: below 1 it plants a wrong bound.
  void count(const Enclosed& tensor, std::size_t at, const Arb& exact, const std::string& place, double shrink = 1) {
    const double error = distance(exact, tensor.value[at], tensor.low.empty() ? 0 : tensor.low[at]);
    const double radius = tensor.radius[at] * shrink;
    ++elements;
    if (!(radius < INFINITY)) ++unknown;
    if (!(error <= radius) && outside++ == 0) first = place + ", element " + std::to_string(at);
    if (!(error / radius <= worst) && error > 0) worst = error / radius;
  }
};

/// A way to a truth: the tiers of truth.hpp and the cpp_bin_float back end beside them.
struct Way {
  const char* name;
  Truth (*forward)(const Problem&);
  Truth (*gradient)(const Problem&);
};

inline constexpr Way fp64_way{"fp64", [](const Problem& p) { return forward_truth(p); },
                              [](const Problem& p) { return gradient_truth(p); }};
inline constexpr Way double_double_way{"double_double", [](const Problem& p) { return forward_truth(p, Arithmetic::double_double); },
                                       [](const Problem& p) { return gradient_truth(p, Arithmetic::double_double); }};
inline constexpr Way mpfr_way{"mpfr", [](const Problem& p) { return forward_truth(p, Arithmetic::multiprecision, 113); },
                              [](const Problem& p) { return gradient_truth(p, Arithmetic::multiprecision, 113); }};
inline constexpr Way cpp_bin_float_way{"cpp_bin_float",
                                       [](const Problem& p) {
                                         Truth truth;
                                         certified::forward_cpp_bin_float(p, truth);
                                         return truth;
                                       },
                                       [](const Problem& p) {
                                         Truth truth;
                                         certified::gradient_cpp_bin_float(p, truth);
                                         return truth;
                                       }};

} // namespace kdacheck::test
