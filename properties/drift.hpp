#pragma once
// What becomes of a kernel's error along one long sequence: where nothing is forgotten, errors may add up.

#include "../kernels/kernel.hpp"
#include "cases/recipe.hpp"
#include "judge.hpp"

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace kdacheck {

/// A window of tokens, four to an octave of the token's number.
struct DriftWindow {
  std::int64_t token = 0; ///< the worst one
  double largest = 0;     ///< its error / bound of o, as in Comparison::screening
  double median = 0;      ///< over the window
};

/// The same case cut at a length: the prefix of the longest one, bit for bit.
struct DriftLength {
  std::int64_t T = 0;
  Finding finding;    ///< on o and the final state
  std::string replay; ///< token
};

struct Drift {
  std::string kernel, regime;
  std::vector<DriftLength> lengths; ///< shortest first
  std::vector<DriftWindow> windows; ///< of the longest; empty where the kernel refused it
};

/// The law that the lengths of a drift are replayed by.
inline constexpr const char* drift_law = "agrees-with-the-oracle";

/// The recipe as one sequence of T tokens and one head, its key and value no wider than that: what keeps a long run short.
Recipe long_run(Recipe, std::int64_t T, std::int64_t widest_key, std::int64_t widest_value);

/// Regimes whose states live long enough to drift.
const std::vector<std::string>& drift_regimes();

/// The regime's first full-tier case at B = H = 1, K <= 16, V <= 8, no packing and so many tokens, fitted to the kernel.
Recipe drift_recipe(const Kernel&, const Regime&, std::uint64_t seed, std::int64_t T);

/// Runs the kernel on that case at `longest` tokens, a quarter of it, ... down to 64, and judges each. Lengths that the kernel's
/// domain leaves out are not_supported.
Drift measure_drift(const Kernel&, const Regime&, std::uint64_t seed, std::int64_t longest);

} // namespace kdacheck
