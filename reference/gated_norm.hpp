#pragma once
// RMSNorm over the channels of a head with a sigmoid gate, and its reverse mode, in any number type.
//   z_j = w_j n_j sigmoid(gate_j),  n = o / sqrt(mean o^2 + epsilon)
// Source: Kimi Linear technical report (arXiv 2510.26692), section 4.

#include "gate.hpp"

#include <cmath>
#include <span>
#include <vector>

namespace kdacheck {

/// 1 / sqrt(mean o^2 + epsilon)
template <Number N> N inverse_rms(std::span<const N> o, const N& epsilon) {
  using std::sqrt;
  N sum(0.0);
  for (const N& x : o) sum = sum + x * x;
  return N(1.0) / sqrt(N(sum / N(static_cast<double>(o.size())) + epsilon));
}

template <Number N> std::vector<N> gated_norm(std::span<const N> o, std::span<const N> gate, std::span<const N> weight, const N& epsilon) {
  const N r = inverse_rms(o, epsilon);
  std::vector<N> z;
  for (std::size_t j = 0; j < o.size(); ++j) z.push_back(weight[j] * (o[j] * r) * sigmoid(gate[j]));
  return z;
}

template <Number N> struct GatedNormGradient {
  std::vector<N> o, gate, weight;
};

/// d n_j = dz_j w_j sigmoid(gate_j);  d o = r (dn - n mean(n . dn))
template <Number N>
GatedNormGradient<N> gated_norm_reverse(std::span<const N> o, std::span<const N> gate, std::span<const N> weight, const N& epsilon,
                                        std::span<const N> d_z) {
  const N r = inverse_rms(o, epsilon);
  GatedNormGradient<N> d;
  std::vector<N> d_n;
  N along(0.0);
  for (std::size_t j = 0; j < o.size(); ++j) {
    const N n = o[j] * r, open = sigmoid(gate[j]);
    d_n.push_back(d_z[j] * weight[j] * open);
    d.gate.push_back(d_z[j] * weight[j] * n * open * sigmoid(N(-gate[j])));
    d.weight.push_back(d_z[j] * n * open);
    along = along + n * d_n[j];
  }
  const N mean = along / N(static_cast<double>(o.size()));
  for (std::size_t j = 0; j < o.size(); ++j) d.o.push_back(r * (d_n[j] - o[j] * r * mean));
  return d;
}

} // namespace kdacheck
