#pragma once
// The KimiDeltaAttention layer of one sequence as mathematics, in any number type.
//
//   q, k = swish(conv(x W)) / sqrt(|.|^2 + 1e-6)    v = swish(conv(x W_v))    ln alpha = gate((x F_down) F_up)    beta = sigmoid(x W_b)
//   o = KDA(q, k, v, alpha, beta)                   z = RMSNorm_head(o) (.) sigmoid((x G_down) G_up + b_g)        y = z W_o
// Sources: Kimi Linear technical report (arXiv 2510.26692), sections 3 and 4; parameters as in flash-linear-attention's layer.

#include "chunk_algebra.hpp"
#include "gated_norm.hpp"
#include "gating.hpp"
#include "recurrence.hpp"
#include "short_convolution.hpp"
#include "stored.hpp"

#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

namespace kdacheck {

/// Sizes and form; scale, epsilon and lower_bound are exactly these numbers in every arithmetic.
struct LayerForm {
  std::int64_t H = 1, HV = 1, K = 1, V = 1, conv_width = 4;
  GateForm gate = GateForm::softplus;
  double lower_bound = -5.0, scale = 1.0, norm_epsilon = 1e-5;
  BetaForm beta = BetaForm::sigmoid;
};

/// Parameters, or their gradients: y = x W for every matrix; A_log, dt_bias and convolution biases may be empty.
template <Number N> struct LayerTensors {
  Matrix<N> q_proj, k_proj, v_proj;
  Convolution<N> q_conv, k_conv, v_conv;
  Matrix<N> f_down, f_up;
  std::vector<N> A_log, dt_bias;
  Matrix<N> b_proj, g_down, g_up;
  std::vector<N> g_bias, o_norm;
  Matrix<N> o_proj;
};

/// What one sequence remembers, or its gradient.
template <Number N> struct LayerMemory {
  Matrix<N> q_conv, k_conv, v_conv; ///< [width-1,channels] last inputs of the convolutions, oldest first
  std::vector<State<N>> heads;      ///< [HV]
};

/// Everything on the way from x to y.
template <Number N> struct LayerRun {
  Matrix<N> q_seen, k_seen, v_seen; ///< inputs of the convolutions with their history
  Matrix<N> q_a, k_a, v_a;          ///< outputs of the convolutions
  Matrix<N> q, k, v;                ///< after swish
  LowRankGate<N> gating;
  Matrix<N> beta_logit, gate_hidden, gate;
  std::vector<std::vector<Token<N>>> tokens; ///< [HV][T]
  std::vector<std::vector<State<N>>> states; ///< [HV]: before every token (or chunk) and at the end
  Matrix<N> o, z, y;                         ///< [T,HV V], [T,HV V], [T,D]
  LayerMemory<N> end;
};

namespace layer_detail {

/// Columns head * width ... of a row.
template <Number N> std::vector<N> part(const Matrix<N>& A, std::int64_t row, std::int64_t head, std::int64_t width) {
  std::vector<N> values;
  for (std::int64_t i = 0; i < width; ++i) values.push_back(A(row, head * width + i));
  return values;
}
template <Number N> void put_part(Matrix<N>& A, std::int64_t row, std::int64_t head, const std::vector<N>& values) {
  const auto width = static_cast<std::int64_t>(values.size());
  for (std::int64_t i = 0; i < width; ++i) A(row, head * width + i) = values[static_cast<std::size_t>(i)];
}
template <Number N> Matrix<N> last_rows(const Matrix<N>& A, std::int64_t count) {
  return matrix_of<N>(count, A.columns, [&](std::int64_t i, std::int64_t j) { return A(A.rows - count + i, j); });
}
template <Number N> Matrix<N> as_matrix(const State<N>& S) {
  Matrix<N> A(S.K, S.V);
  A.element = S.element;
  return A;
}
template <Number N> State<N> as_state(const Matrix<N>& A) {
  State<N> S(A.rows, A.columns);
  S.element = A.element;
  return S;
}

} // namespace layer_detail

/// x [T,D]. chunk = 0: KDA by its recurrence; else by chunks of that many tokens, which gives the same in exact arithmetic.
template <Number N>
LayerRun<N> run_layer(const LayerForm& form, const LayerTensors<N>& p, const Matrix<N>& x, const LayerMemory<N>& start,
                      std::int64_t chunk = 0) {
  using namespace layer_detail;
  const std::int64_t T = x.rows, HV = form.HV, K = form.K, V = form.V;
  LayerRun<N> run;
  run.q_seen = with_history(start.q_conv, stored(x * p.q_proj));
  run.k_seen = with_history(start.k_conv, stored(x * p.k_proj));
  run.v_seen = with_history(start.v_conv, stored(x * p.v_proj));
  run.q = stored(swish(run.q_a = convolved(p.q_conv, run.q_seen)));
  run.k = stored(swish(run.k_a = convolved(p.k_conv, run.k_seen)));
  run.v = stored(swish(run.v_a = convolved(p.v_conv, run.v_seen)));
  run.gating = {.form = form.gate,
                .lower_bound = N(form.lower_bound),
                .columns_per_head = K,
                .x = x,
                .down = p.f_down,
                .up = p.f_up,
                .A_log = p.A_log,
                .dt_bias = p.dt_bias};
  const std::vector<Decay<N>> decays = low_rank_gates(run.gating);
  run.beta_logit = stored(x * p.b_proj);
  run.gate_hidden = stored(x * p.g_down);
  run.gate = run.gate_hidden * p.g_up;
  for (std::int64_t t = 0; t < T; ++t)
    for (std::int64_t j = 0; j < HV * V; ++j) run.gate(t, j) = run.gate(t, j) + p.g_bias[static_cast<std::size_t>(j)];
  run.gate = stored(std::move(run.gate));

  run.o = run.z = Matrix<N>(T, HV * V);
  run.end = {last_rows(run.q_seen, form.conv_width - 1),
             last_rows(run.k_seen, form.conv_width - 1),
             last_rows(run.v_seen, form.conv_width - 1),
             {}};
  for (std::int64_t head = 0; head < HV; ++head) {
    const std::int64_t shared = head / (HV / form.H);
    std::vector<Token<N>> tokens;
    for (std::int64_t t = 0; t < T; ++t) {
      Token<N> token;
      token.q = stored(normalised<N>(part(run.q, t, shared, K)));
      token.k = stored(normalised<N>(part(run.k, t, shared, K)));
      token.v = part(run.v, t, head, V);
      for (std::int64_t i = 0; i < K; ++i) {
        const Decay<N>& channel = decays[static_cast<std::size_t>((t * HV + head) * K + i)];
        token.log_decay.push_back(channel.log_decay);
        token.alpha.push_back(channel.alpha);
      }
      token.beta = beta_of<N>(form.beta, run.beta_logit(t, head));
      tokens.push_back(token);
    }
    std::vector<State<N>> states{start.heads[static_cast<std::size_t>(head)]};
    const N scale(form.scale);
    for (std::int64_t t = 0; t < T && chunk == 0; ++t) {
      states.push_back(step(Rule::kda, tokens[static_cast<std::size_t>(t)], states.back()));
      put_part(run.o, t, head, stored(read_out(scale, tokens[static_cast<std::size_t>(t)], states.back())));
    }
    for (std::int64_t t = 0; t < T && chunk > 0; t += chunk) {
      const std::vector<Token<N>> here(tokens.begin() + t, tokens.begin() + std::min(t + chunk, T));
      const Chunk<N> solved = chunk_of(Rule::kda, here, scale, as_matrix(states.back()));
      for (std::int64_t i = 0; i < solved.O.rows; ++i) put_part(run.o, t + i, head, stored(part(solved.O, i, 0, V)));
      states.push_back(as_state(solved.end));
    }
    for (std::int64_t t = 0; t < T; ++t)
      put_part(run.z, t, head, stored(gated_norm<N>(part(run.o, t, head, V), part(run.gate, t, head, V), p.o_norm, N(form.norm_epsilon))));
    run.end.heads.push_back(states.back());
    run.tokens.push_back(std::move(tokens));
    run.states.push_back(std::move(states));
  }
  run.y = stored(run.z * p.o_proj);
  return run;
}

} // namespace kdacheck
