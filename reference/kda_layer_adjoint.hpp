#pragma once
// Reverse mode of the layer of one sequence, in any number type: gradients of <d_y, y> + <d_end, end>.

#include "adjoint.hpp"
#include "chunk_adjoint.hpp"
#include "kda_layer.hpp"

#include <algorithm>
#include <cstdint>
#include <vector>

namespace kdacheck {

template <Number N> struct LayerReverse {
  Matrix<N> x;
  LayerMemory<N> start;
};

/// All zero, in the shapes of p.
template <Number N> LayerTensors<N> zero_tensors(const LayerTensors<N>& p) {
  LayerTensors<N> d = p;
  for (auto* matrix : {&d.q_proj, &d.k_proj, &d.v_proj, &d.q_conv.weight, &d.k_conv.weight, &d.v_conv.weight, &d.f_down, &d.f_up, &d.b_proj,
                       &d.g_down, &d.g_up, &d.o_proj})
    std::fill(matrix->element.begin(), matrix->element.end(), N(0.0));
  for (auto* vector : {&d.q_conv.bias, &d.k_conv.bias, &d.v_conv.bias, &d.A_log, &d.dt_bias, &d.g_bias, &d.o_norm})
    std::fill(vector->begin(), vector->end(), N(0.0));
  return d;
}

namespace layer_detail {

template <Number N> void add_to(Matrix<N>& sum, const Matrix<N>& term) { sum = sum + term; }
template <Number N> void add_to(std::vector<N>& sum, const std::vector<N>& term) {
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] = sum[i] + term[i];
}
template <Number N> void add_part(Matrix<N>& A, std::int64_t row, std::int64_t head, const std::vector<N>& values) {
  const auto width = static_cast<std::int64_t>(values.size());
  for (std::int64_t i = 0; i < width; ++i) A(row, head * width + i) = A(row, head * width + i) + values[static_cast<std::size_t>(i)];
}

/// What the tokens of one head receive, last token first; d_state becomes the gradient of the state before the first.
template <Number N>
std::vector<TokenGradient<N>> core_reverse(const std::vector<Token<N>>& tokens, const std::vector<State<N>>& states, const N& scale,
                                           std::int64_t chunk, const Matrix<N>& d_o, State<N>& d_state) {
  std::vector<TokenGradient<N>> d(tokens.size());
  const auto T = static_cast<std::int64_t>(tokens.size());
  for (std::int64_t t = T - 1; t >= 0 && chunk == 0; --t) {
    const auto at = static_cast<std::size_t>(t);
    std::vector<N> d_q = read_out_reverse(scale, tokens[at], states[at + 1], part(d_o, t, 0, d_o.columns), d_state);
    d[at] = step_reverse(Rule::kda, tokens[at], states[at], d_state);
    d[at].q = std::move(d_q);
  }
  for (std::int64_t n = chunk == 0 ? -1 : (T + chunk - 1) / chunk - 1; n >= 0; --n) {
    const std::int64_t first = n * chunk, length = std::min(chunk, T - first);
    const std::vector<Token<N>> here(tokens.begin() + first, tokens.begin() + first + length);
    const Chunk<N> solved = chunk_of(Rule::kda, here, scale, as_matrix(states[static_cast<std::size_t>(n)]));
    const Matrix<N> dO = matrix_of<N>(length, d_o.columns, [&](std::int64_t i, std::int64_t j) { return d_o(first + i, j); });
    const ChunkGradient<N> back = chunk_reverse(Rule::kda, here, scale, solved, dO, as_matrix(d_state));
    for (std::int64_t i = 0; i < length; ++i) {
      TokenGradient<N>& token = d[static_cast<std::size_t>(first + i)];
      token.q = part(back.dq, i, 0, back.dq.columns), token.k = part(back.dk, i, 0, back.dk.columns);
      token.v = part(back.dV, i, 0, back.dV.columns), token.log_decay = part(back.dg, i, 0, back.dg.columns);
      token.beta = back.dbeta[static_cast<std::size_t>(i)];
    }
    d_state = as_state(back.dS);
  }
  return d;
}

} // namespace layer_detail

/// Adds to `d` what this sequence contributes to the parameters' gradients; run is `run_layer` of the same arguments.
template <Number N>
LayerReverse<N> layer_reverse(const LayerForm& form, const LayerTensors<N>& p, const Matrix<N>& x, std::int64_t chunk,
                              const LayerRun<N>& run, const Matrix<N>& d_y, const LayerMemory<N>& d_end, LayerTensors<N>& d) {
  using namespace layer_detail;
  const std::int64_t T = x.rows, HV = form.HV, K = form.K, V = form.V;
  LayerReverse<N> result;
  add_to(d.o_proj, transposed(run.z) * d_y);
  const Matrix<N> d_z = d_y * transposed(p.o_proj);

  Matrix<N> d_gate(T, HV * V), d_beta(T, HV), d_log_decay(T, HV * K), d_q(T, form.H * K), d_k(T, form.H * K), d_v(T, HV * V);
  for (std::int64_t head = 0; head < HV; ++head) {
    const std::int64_t shared = head / (HV / form.H);
    Matrix<N> d_o(T, V);
    for (std::int64_t t = 0; t < T; ++t) {
      const GatedNormGradient<N> back =
          gated_norm_reverse<N>(part(run.o, t, head, V), part(run.gate, t, head, V), p.o_norm, N(form.norm_epsilon), part(d_z, t, head, V));
      put_part(d_o, t, 0, back.o);
      put_part(d_gate, t, head, back.gate);
      add_to(d.o_norm, back.weight);
    }
    const auto h = static_cast<std::size_t>(head);
    State<N> d_state = d_end.heads[h];
    const std::vector<TokenGradient<N>> tokens = core_reverse(run.tokens[h], run.states[h], N(form.scale), chunk, d_o, d_state);
    result.start.heads.push_back(d_state);
    for (std::int64_t t = 0; t < T; ++t) {
      const TokenGradient<N>& token = tokens[static_cast<std::size_t>(t)];
      add_part(d_q, t, shared, normalised_reverse<N>(part(run.q, t, shared, K), token.q));
      add_part(d_k, t, shared, normalised_reverse<N>(part(run.k, t, shared, K), token.k));
      put_part(d_v, t, head, token.v);
      put_part(d_log_decay, t, head, token.log_decay);
      d_beta(t, head) = beta_reverse<N>(form.beta, run.beta_logit(t, head), token.beta);
    }
  }

  for (std::int64_t t = 0; t < T; ++t) add_to(d.g_bias, part(d_gate, t, 0, HV * V));
  add_to(d.g_up, transposed(run.gate_hidden) * d_gate);
  const Matrix<N> d_hidden = d_gate * transposed(p.g_up);
  add_to(d.g_down, transposed(x) * d_hidden);
  add_to(d.b_proj, transposed(x) * d_beta);
  const LowRankGateGradients<N> gating = low_rank_gates_reverse(run.gating, d_log_decay);
  add_to(d.f_down, gating.down), add_to(d.f_up, gating.up);
  add_to(d.A_log, gating.A_log), add_to(d.dt_bias, gating.dt_bias);
  result.x = d_hidden * transposed(p.g_down) + d_beta * transposed(p.b_proj) + gating.x;

  const auto branch = [&](const Convolution<N>& conv, const Matrix<N>& seen, const Matrix<N>& a, const Matrix<N>& d_after_swish,
                          const Matrix<N>& d_last, const Matrix<N>& proj, Convolution<N>& d_conv, Matrix<N>& d_proj) {
    Matrix<N> d_seen(seen.rows, seen.columns);
    for (std::int64_t i = 0; i < d_last.rows; ++i)
      for (std::int64_t c = 0; c < d_last.columns; ++c) d_seen(seen.rows - d_last.rows + i, c) = d_last(i, c);
    convolved_reverse(conv, seen, swish_reverse(a, d_after_swish), d_seen, d_conv);
    const std::int64_t history = seen.rows - T;
    const Matrix<N> d_u = last_rows(d_seen, T);
    add_to(d_proj, transposed(x) * d_u);
    add_to(result.x, d_u * transposed(proj));
    return matrix_of<N>(history, seen.columns, [&](std::int64_t i, std::int64_t c) { return d_seen(i, c); });
  };
  result.start.q_conv = branch(p.q_conv, run.q_seen, run.q_a, d_q, d_end.q_conv, p.q_proj, d.q_conv, d.q_proj);
  result.start.k_conv = branch(p.k_conv, run.k_seen, run.k_a, d_k, d_end.k_conv, p.k_proj, d.k_conv, d.k_proj);
  result.start.v_conv = branch(p.v_conv, run.v_seen, run.v_a, d_v, d_end.v_conv, p.v_proj, d.v_conv, d.v_proj);
  return result;
}

} // namespace kdacheck
