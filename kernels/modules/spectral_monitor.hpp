#pragma once
// The monitor of DPLRTransition: proved bounds on spectral radius and norm, per token and over a window, and beside them
// the heuristic  max(alpha) (1 + beta |k|^2) > threshold  that some implementations warn by, with its false alarms counted.
//
// Notation: A = (I - beta k k^T) D, D = Diag(alpha) >= 0, tau = beta |k|^2, m = sum k_i^2 alpha_i / |k|^2.
//   norm     |A|^2 <= alpha_max^2 + max(0, beta (tau - 2)) |D k|^2,  as A^T A = D^2 + beta (tau - 2) (D k)(D k)^T;
//            |A| <= alpha_max max(1, |1 - tau|), the product of the factors' norms.     The lesser of the two is taken.
//            |A| >= |A^T k| / |k| = |1 - tau| |D k| / |k|.
//   radius   A is similar to the symmetric D - beta u u^T, u = D^{1/2} k (where D is singular, in the limit). beta >= 0: no
//            eigenvalue exceeds alpha_max; one below 0, -x, has 1 = beta sum k_i^2 alpha_i / (alpha_i + x), concave in alpha:
//            1 <= tau m / (m + x) by Jensen, so x <= (tau - 1) m. beta < 0: none is below 0 or exceeds
//            alpha_max + |beta| sum k_i^2 alpha_i, the largest plus the trace of what is added.   Never more than |A|.
//   window   |A_T ... A_1| <= prod |A_t|. Radii do not multiply.
//   general  |D - a b^T|^2 <= max d^2 + t/2 + sqrt(t^2/4 + |Da|^2 |b|^2 - (Da.b)^2), t = |a|^2 |b|^2 - 2 Da.b, the largest
//            eigenvalue of the rank-two  |a|^2 b b^T - (Da) b^T - b (Da)^T;  or max |d| + |a| |b|. Its radius has no better.
// Bounds are computed in fp64 from the fp32 inputs and hold for the exact matrix of these inputs, K <= 4096: the arguments
// below keep a relative 2^-40 of their largest term for roundings, where K + 20 of them are less than 2^-41.

#include "dplr_transition.hpp"

#include <cstdint>
#include <vector>

namespace kdacheck::modules {

struct TransitionBounds {
  double radius = 0;        ///< no eigenvalue is larger in magnitude
  double norm = 0;          ///< no vector grows by more (2-norm)
  double norm_at_least = 0; ///< some vector grows by this much; 0 where nothing is known
  double heuristic = 0;     ///< max(alpha) (1 + beta |k|^2); of the general form max |d| + |a| |b|
};

/// Bounds of one head's transition. alpha, k [K]; alpha finite and >= 0, k and beta finite: not checked here.
TransitionBounds transition_bounds(std::span<const float> alpha, std::span<const float> k, float beta);

/// Bounds of D - a b^T; d, a, b [K], finite.
TransitionBounds dplr_transition_bounds(std::span<const float> d, std::span<const float> a, std::span<const float> b);

/// What was seen, in heads times tokens.
struct MonitorCounts {
  std::int64_t tokens = 0;
  std::int64_t proved_within = 0;    ///< norm <= threshold, proved
  std::int64_t proved_growing = 0;   ///< norm > threshold, proved
  std::int64_t heuristic_alarms = 0; ///< heuristic > threshold
  std::int64_t false_alarms = 0;     ///< heuristic > threshold though proved within it
  std::int64_t silent_growth = 0;    ///< heuristic <= threshold though proved growing
  double largest_norm = 0, largest_radius = 0;
  bool operator==(const MonitorCounts&) const = default;
};

/// Watches the transitions of B H heads over the last `window` tokens. It never changes a state.
class SpectralMonitor {
public:
  /// Throws std::invalid_argument for extents or a window below 1, K above 4096, or a threshold that is not finite.
  SpectralMonitor(StateShape shape, std::int64_t window, double threshold = 1.0);

  /// Looks at one token of every head. Throws std::invalid_argument, having counted nothing, for sizes that do not fit,
  /// numbers that are not finite, or alpha below 0.
  void observe(const KdaStep& step);

  const MonitorCounts& counts() const { return counts_; }

  /// log2 of a proved bound on the norm of the product of the last min(window, tokens seen) transitions of head h of
  /// sequence b; -inf if it is 0. Throws std::out_of_range.
  double window_norm_log2(std::int64_t b, std::int64_t h) const;

private:
  StateShape shape_;
  std::int64_t window_, seen_ = 0;
  double threshold_;
  MonitorCounts counts_;
  std::vector<double> log2_norms_; ///< [window, B H], a ring over tokens
};

} // namespace kdacheck::modules
