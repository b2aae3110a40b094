#pragma once
// Random and adversarial transitions with small rational entries.

#include "../spectral_bounds.hpp"

#include <cstdint>
#include <random>
#include <vector>

namespace kdacheck {

/// Entries are multiples of 1/16 (exact in every number type): alpha in [0,1] with ties, 0 and 1 among them; k with zeros;
/// beta in [-1,4]. Half have tau on a threshold (1 or 2) or 2^-40 of it to either side, as far as the number type divides.
template <Number N> Transition<N> random_transition(std::mt19937_64& bits, std::size_t K) {
  const auto sixteenths = [&](int low, int high) {
    return N(static_cast<double>(low + static_cast<int>(bits() % static_cast<std::uint64_t>(high - low + 1))) / 16);
  };
  Transition<N> A;
  const std::uint64_t family = bits() % 4;
  for (std::size_t i = 0; i < K; ++i) {
    A.alpha.push_back(family == 0 ? sixteenths(0, 16) : family == 1 ? sixteenths(14, 16) : family == 2 ? sixteenths(1, 15) : N(0.5));
    A.k.push_back(bits() % 5 == 0 ? N(0.0) : sixteenths(-16, 16));
  }
  A.beta = sixteenths(-16, 64);
  const std::uint64_t threshold = bits() % 12;
  const N norm = tau(Transition<N>{A.alpha, A.k, N(1.0)});
  const double offset = threshold / 2 == 0 ? 0 : threshold / 2 == 1 ? 0x1p-40 : -0x1p-40;
  if (threshold < 6 && N(0.0) < norm) A.beta = N((threshold % 2 == 0 ? 1.0 : 2.0) * (1 + offset)) / norm;
  return A;
}

} // namespace kdacheck
