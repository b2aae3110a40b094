#pragma once
// Spectra of the transitions that cases hold, computed, beside what is proved of them (error theory S5 to S8) and what a
// heuristic that some implementations warn by says: max(alpha) (1 + beta |k|^2) > 1, of the general form max |d| + |a| |b| > 1.

#include "../properties/cases/recipe.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace kdacheck {

/// One transition, inputs rounded to fp32. `least` and `largest` are the real parts of its outermost eigenvalues, `radius` the
/// largest |eigenvalue|, `norm` the largest singular value.
struct SpectrumSample {
  double tau = 0; ///< beta |k|^2; of the general form |a| |b|
  double least = 0, largest = 0, radius = 0, norm = 0;
  double least_low = 0, least_high = 0; ///< S5: proved enclosure of `least`; for the general form: none, both NaN
  double radius_bound = 0, norm_bound = 0, heuristic = 0;
  bool outside = false;     ///< a computed figure leaves its proved enclosure by more than the solver's error
  bool grows = false;       ///< proved: some vector grows
  bool within = false;      ///< proved: no vector grows
  bool false_alarm = false; ///< the heuristic warns though `within`
  bool silent = false;      ///< it does not though `grows`
};

struct RegimeSpectra {
  Rule rule = Rule::kda;
  std::string regime, recipe; ///< recipe: the part of a replay token after the property
  std::vector<SpectrumSample> samples;
};

/// Up to `most` transitions, spread over the tokens and heads of the regime's first full-tier case with K <= 16. None for a case
/// without tokens.
RegimeSpectra measure_spectra(const Regime&, std::uint64_t seed, std::size_t most);

} // namespace kdacheck
