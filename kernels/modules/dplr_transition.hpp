#pragma once
// DPLRTransition: one token's transition of a batch of states in O(K V) per head, in KDA's bound form and in general:
// a and b are free, and still no K x K matrix is formed (some call its product with S, in O(K^2 V), the general form).
//   KDA       S <- (I - beta k k^T) Diag(alpha) S  (+ beta k v^T)
//   general   S <- (Diag(d) - a b^T) S  (+ k v^T)          KDA is d = alpha, a = beta k, b = k (.) alpha, key beta k
//
// Source: Kimi Linear technical report (arXiv 2510.26692), eq. 1 and section 6.2. Numbers have no unit.

#include <cstdint>
#include <span>

namespace kdacheck::modules {

/// States [B,H,K,V], row-major.
struct StateShape {
  std::int64_t B = 1, H = 1, K = 1, V = 1;
  std::int64_t elements() const { return B * H * K * V; }
  bool operator==(const StateShape&) const = default;
};

/// alpha, k [B,H,K]; beta [B,H]; v [B,H,V], which only the update reads.
struct KdaStep {
  std::span<const float> alpha, k, beta, v;
};

/// d, a, b, k [B,H,K]; v [B,H,V]; k and v are read by the update alone.
struct DplrStep {
  std::span<const float> d, a, b, k, v;
};

/// In place, in fp32. With u = 2^-24 element (i, j) is wrong by at most (K + 4) u / (1 - (K + 4) u) times
/// |alpha_i S_ij| + |beta k_i| sum_m |k_m alpha_m S_mj| + |beta k_i v_j|, and likewise in general. The same bits with any
/// number of threads. NaN and infinity pass through as IEEE 754 has it. Each throws std::invalid_argument with a sentence
/// that names the tensor, before anything is written, where a size does not fit or an extent is not positive.
void transition(const StateShape&, const KdaStep&, std::span<float> state);
void update(const StateShape&, const KdaStep&, std::span<float> state);
void transition(const StateShape&, const DplrStep&, std::span<float> state);
void update(const StateShape&, const DplrStep&, std::span<float> state);

} // namespace kdacheck::modules
