#pragma once
// FineGrainedGating: decay gates of every channel (or head) from the layer's input, through two thin projections.
//
//   logit = (x down) up        x [B,T,D]   down [D,rank]   up [rank,W]        W = H K, or H with one gate per head
//   sigmoid    alpha = sigmoid(logit)
//   softplus   ln alpha = -e^{A_log} softplus(logit + dt_bias)
//   bounded    ln alpha = lower_bound sigmoid(e^{A_log} (logit + dt_bias))
//
// Source: Kimi Linear technical report (arXiv 2510.26692), section 3.1. Gates have no unit; ln alpha is in nats per token.

#include "../../reference/problem.hpp"

#include <cstdint>
#include <span>
#include <vector>

namespace kdacheck::modules {

/// Sizes and form of the module; form is sigmoid, softplus or bounded.
struct Gating {
  std::int64_t D = 1, rank = 1, H = 1, K = 1;
  GateForm form = GateForm::sigmoid;
  bool per_head = false;                                      ///< one gate per head instead of one per channel
  float lower_bound = -5.0f;                                  ///< of the bounded form; finite, at most 0
  std::int64_t width() const { return per_head ? H : H * K; } ///< W
};

/// Row-major. A_log and dt_bias are empty for the sigmoid form; dt_bias may be empty (zero) for the others.
struct GatingParameters {
  std::vector<float> down;    ///< [D,rank]
  std::vector<float> up;      ///< [rank,W]
  std::vector<float> A_log;   ///< [H]; -inf: no decay. Above 88 it counts as 88, the end of fp32
  std::vector<float> dt_bias; ///< [W]
};

/// Projections uniform in +-sqrt(6 / (rows + columns)) (Glorot and Bengio 2010), A_log and dt_bias zero. Element i of a
/// matrix follows from (seed, matrix, i) alone by Philox4x32-10 and operations that IEEE 754 fixes: every machine draws the
/// same bits. Throws std::invalid_argument for sizes that are not positive.
GatingParameters xavier_parameters(const Gating&, std::uint64_t seed);

/// x [B,T,D], finite.
struct GatingInput {
  std::int64_t B = 1, T = 0;
  std::span<const float> x;
};

/// [B,T,H,K], or [B,T,H] with one gate per head. log_decay may be empty: not wanted.
struct Gates {
  std::span<float> alpha;     ///< in [0,1]
  std::span<float> log_decay; ///< ln alpha <= 0; keeps 1 - alpha where alpha itself rounds to 1
};

/// The gates, in fp32 with one chain of multiply-adds per sum: a row's gates depend on that row alone, bit for bit. Rows
/// whose fp32 sums overflow are summed in fp64, so that every finite input has gates. Given logits, with u = 2^-24,
/// y = logit + dt_bias and z = e^{A_log} y: the argument of sigmoid and softplus is wrong by at most u |y| (softplus) or
/// 3 u |z| (bounded), the value of ln alpha then by a relative 16 u and, where the exponential
/// is subnormal, 2^-148 max(1, e^{A_log} or |lower_bound|); alpha = e^{ln alpha} by a relative 8 u more.
/// Throws std::invalid_argument, before anything is written, with a sentence that names the tensor: for a wrong size, for
/// NaN or infinity in any tensor (A_log may hold -inf), for another gate form.
void gates(const Gating&, const GatingParameters&, const GatingInput&, const Gates&);

/// What a loss sends back, in the shapes of Gates; either may be empty (zero).
struct GateCotangents {
  std::span<const float> alpha, log_decay;
};

/// Gradients in the shapes of their primals. A_log and dt_bias are empty where the parameters have none.
struct GatingGradients {
  std::vector<float> x, down, up, A_log, dt_bias;
};

/// The gradients of `gates`; hidden rows and logits are computed again. Sums over rows for A_log and dt_bias run in fp64.
/// Repeats bit for bit with any number of threads. Where a row overflows fp32, its hidden values count as the largest
/// fp32 number. Throws as `gates` does.
GatingGradients gates_backward(const Gating&, const GatingParameters&, const GatingInput&, const GateCotangents&);

} // namespace kdacheck::modules
