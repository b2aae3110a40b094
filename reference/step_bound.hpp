#pragma once
// The norm of one transition, bounded from above: what an error in the state is multiplied by.

#include "rounding.hpp"

#include <algorithm>
#include <cmath>

namespace kdacheck::certified {

/// Scalars that the running bound needs of one token. Norms are upper bounds for the exact and the computed vector alike.
struct StepBound {
  double alpha_max = 1;      ///< largest decay
  double alpha_relative = 0; ///< |computed - exact| <= alpha_relative computed + alpha_flush, in every channel
  double alpha_flush = 0;
  double query_norm = 0, query_error = 0; ///< ||q||, ||computed q - q||
  double key_norm = 0, key_error = 0;     ///< ||k||, ||computed k - k||
  double beta = 0, beta_error = 0;        ///< |beta|, |computed beta - beta|   (KDA)
  double erase_norm = 0, read_norm = 0;   ///< ||a||, ||b||                     (DPLR)
  double reflection = 1;                  ///< of KDA: ||I - beta k k^T||
  double growth = 1;                      ///< ||I - beta k k^T Diag(alpha)|| or ||Diag(alpha) - a b^T||
};

/// ||D - a b^T||_2 from  ||M||^2 <= max(D)^2 + lambda,  M^T M = D^2 + R,  R = ||a||^2 b b^T - (Da) b^T - b (Da)^T  of rank
/// two, whose largest eigenvalue is  lambda = t/2 + sqrt(t^2/4 + ||Da||^2 ||b||^2 - (Da.b)^2),  t = ||a||^2 ||b||^2 - 2 Da.b;
/// and from the triangle inequality. Rounding of t and of the root's argument is covered by 2^-44 of their largest terms.
inline double rank_one_growth(double alpha_max, double a_norm, double b_norm, double scaled_a_norm, double scaled_a_dot_b) {
  const double triangle = alpha_max + a_norm * b_norm;
  const double outer = a_norm * a_norm * b_norm * b_norm;
  const double cross = scaled_a_norm * b_norm;
  const double t = outer - 2 * scaled_a_dot_b;
  const double root = std::sqrt(std::max(0.0, t * t / 4 + (cross - std::fabs(scaled_a_dot_b)) * (cross + std::fabs(scaled_a_dot_b))) +
                                0x1p-44 * (outer * outer + 4 * cross * cross));
  const double lambda = std::max(0.0, t / 2 + root + 0x1p-44 * (outer + 2 * cross));
  const double sharp = std::sqrt(alpha_max * alpha_max + lambda);
  return (sharp < triangle ? sharp : triangle) * rounded_up;
}

/// Fills reflection and growth of a KDA token: ||I - beta k k^T|| = max(1, |1 - tau|), tau = beta ||k||^2; where tau < 0 or
/// tau > 2 also  ||A||^2 <= alpha_max^2 + beta (tau - 2) ||Diag(alpha) k||^2. `beta` is the computed one.
inline void bound_kda_step(StepBound& step, double beta, double key_square, double scaled_key_square) {
  const double tau = beta * key_square;
  const double tau_error = std::fabs(tau) * 0x1p-40 + step.beta_error * key_square * rounded_up +
                           2 * std::fabs(beta) * step.key_norm * step.key_error * rounded_up + norm_floor;
  step.reflection = std::max({1.0, std::fabs(1 - tau) + tau_error}) * rounded_up;
  step.growth = step.alpha_max * step.reflection;
  const double excess = beta * (tau - 2);
  const double excess_error =
      std::fabs(beta) * tau_error + step.beta_error * (std::fabs(tau) + tau_error + 2) + std::fabs(excess) * 0x1p-40;
  if (excess + excess_error > 0) {
    const double sharp = std::sqrt(step.alpha_max * step.alpha_max + (excess + excess_error) * scaled_key_square) * rounded_up;
    if (sharp < step.growth) step.growth = sharp;
  }
  step.growth *= rounded_up;
}

} // namespace kdacheck::certified
