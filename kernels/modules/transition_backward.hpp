#pragma once
// Reverse mode of DPLRTransition's updates, in O(K V) per head.
//
//   KDA       X = Diag(alpha) S, w = v - X^T k, S' = X + beta k w^T;   G = dS', m = G^T k, dX = G - beta k m^T
//             dv = beta m   dbeta = m . w   dk = beta (G w - X m)   dalpha_i = dX_i . S_i   dS = Diag(alpha) dX
//   general   p = S^T b, S' = Diag(d) S - a p^T + k v^T;               n = G^T a
//             dv = G^T k   dk = G v   da = -G p   db = -S n   dd_i = G_i . S_i   dS = Diag(d) G - b n^T
//
// Numbers have no unit. Source: the derivative of Kimi Linear technical report (arXiv 2510.26692), eq. 1 and section 6.2.

#include "dplr_transition.hpp"

namespace kdacheck::modules {

/// Where gradients go, in the shapes of the step; they are overwritten.
struct KdaStepGradients {
  std::span<float> alpha, k, beta, v;
};
struct DplrStepGradients {
  std::span<float> d, a, b, k, v;
};

/// d_state [B,H,K,V] is the gradient of the state behind `update` and becomes that of the state before it, which `state` is.
/// fp32, products summed in the same order with any number of threads. Throws std::invalid_argument with a sentence that names
/// the tensor, before anything is written, where a size does not fit.
void update_backward(const StateShape&, const KdaStep&, std::span<const float> state, std::span<float> d_state, const KdaStepGradients&);
void update_backward(const StateShape&, const DplrStep&, std::span<const float> state, std::span<float> d_state, const DplrStepGradients&);

} // namespace kdacheck::modules
