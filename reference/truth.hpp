#pragma once
// What is true of a problem: outputs and gradients with a radius that encloses the exact real number.

#include "problem.hpp"

#include <array>
#include <string>
#include <vector>

namespace kdacheck {

/// A tensor known within a radius: |value + low - exact| <= radius, element by element.
struct Enclosed {
  std::vector<double> value;
  std::vector<double> low;    ///< second word of a more precise value; empty where value alone is all there is
  std::vector<double> radius; ///< finite and >= 0, or +inf where the arithmetic gave up
  bool empty() const { return value.empty(); }
};

/// Arithmetic of the certified recurrence, cheapest first; each carries the same running error bound with its own
/// unit roundoff. `mp_bits` names the significand of the multiprecision tier.
enum class Arithmetic : std::uint8_t { fp64, double_double, multiprecision };

std::string_view name(Arithmetic);

/// Outputs of the forward pass and, on request, gradients of  <d_o, o> + <d_final_state, S_final>.
struct Truth {
  Enclosed o;                                       ///< [B,T,HV,V]
  Enclosed final_state;                             ///< [N,HV,K,V]
  std::array<Enclosed, all_inputs.size()> gradient; ///< by Input, shape of the primal; empty where not asked for or absent
  Arithmetic arithmetic = Arithmetic::fp64;
  int bits = 53; ///< significand of the arithmetic that gave it

  const Enclosed& operator[](Output output) const { return output == Output::o ? o : final_state; }
  const Enclosed& operator[](Input input) const { return gradient[static_cast<std::size_t>(input)]; }
  Enclosed& operator[](Input input) { return gradient[static_cast<std::size_t>(input)]; }
};

/// Certified forward pass. Multiprecision uses `bits` (113 at least). The problem must be well formed.
Truth forward_truth(const Problem&, Arithmetic = Arithmetic::fp64, int bits = 113);

/// Certified forward pass and gradients to every tensor that is present.
Truth gradient_truth(const Problem&, Arithmetic = Arithmetic::fp64, int bits = 113);

/// The next more precise (arithmetic, bits) after those of a truth; doubles the bits of multiprecision up to 1024,
/// then nothing is left.
std::optional<std::pair<Arithmetic, int>> more_precise(const Truth&);

} // namespace kdacheck
