#pragma once
// FineGrainedGating as mathematics: two projections and a gate, and the reverse mode, in any number type.
// Source: Kimi Linear technical report (arXiv 2510.26692), section 3.1.

#include "gate.hpp"
#include "stored.hpp"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace kdacheck {

/// x [rows,D], down [D,rank], up [rank,W]; column c of W belongs to head c / columns_per_head (K, or 1 with one gate per
/// head). A_log [H] and dt_bias [W] may be empty: zero.
template <Number N> struct LowRankGate {
  GateForm form = GateForm::sigmoid;
  N lower_bound{-5.0};
  std::int64_t columns_per_head = 1;
  Matrix<N> x, down, up;
  std::vector<N> A_log, dt_bias;
};

/// The raw gate of column c for a logit.
template <Number N> Gate<N> gate_of_column(const LowRankGate<N>& module, std::int64_t c, const N& logit) {
  Gate<N> gate{.form = module.form, .lower_bound = module.lower_bound, .x = logit};
  if (!module.A_log.empty()) gate.A_log = module.A_log[static_cast<std::size_t>(c / module.columns_per_head)];
  if (!module.dt_bias.empty()) gate.dt_bias = module.dt_bias[static_cast<std::size_t>(c)];
  return gate;
}

/// (x down) up, [rows,W].
template <Number N> Matrix<N> gate_logits(const LowRankGate<N>& module) { return stored(stored(module.x * module.down) * module.up); }

/// ln alpha and alpha of every row and column.
template <Number N> std::vector<Decay<N>> low_rank_gates(const LowRankGate<N>& module) {
  const Matrix<N> logits = gate_logits(module);
  std::vector<Decay<N>> result;
  for (std::int64_t i = 0; i < logits.rows; ++i)
    for (std::int64_t c = 0; c < logits.columns; ++c) result.push_back(decay(gate_of_column(module, c, logits(i, c))));
  return result;
}

/// Derivatives of a loss, in the shapes of the primals.
template <Number N> struct LowRankGateGradients {
  Matrix<N> logits, x, down, up;
  std::vector<N> A_log, dt_bias;
};

/// Reverse mode of `low_rank_gates` for the cotangent of ln alpha, [rows,W].
template <Number N> LowRankGateGradients<N> low_rank_gates_reverse(const LowRankGate<N>& module, const Matrix<N>& d_log_decay) {
  const Matrix<N> hidden = module.x * module.down, logits = hidden * module.up;
  LowRankGateGradients<N> d{.logits = Matrix<N>(logits.rows, logits.columns),
                            .x = {},
                            .down = {},
                            .up = {},
                            .A_log = std::vector<N>(module.A_log.size(), N(0.0)),
                            .dt_bias = std::vector<N>(module.dt_bias.size(), N(0.0))};
  for (std::int64_t i = 0; i < logits.rows; ++i)
    for (std::int64_t c = 0; c < logits.columns; ++c) {
      const Gate<N> gate = gate_of_column(module, c, logits(i, c));
      const GateGradient<N> through = decay_reverse(gate, decay(gate), d_log_decay(i, c));
      d.logits(i, c) = through.x;
      if (!d.A_log.empty()) {
        N& sum = d.A_log[static_cast<std::size_t>(c / module.columns_per_head)];
        sum = sum + through.A_log;
      }
      if (!d.dt_bias.empty()) d.dt_bias[static_cast<std::size_t>(c)] = d.dt_bias[static_cast<std::size_t>(c)] + through.x;
    }
  const Matrix<N> d_hidden = d.logits * transposed(module.up);
  d.up = transposed(hidden) * d.logits;
  d.down = transposed(module.x) * d_hidden;
  d.x = d_hidden * transposed(module.down);
  return d;
}

} // namespace kdacheck
