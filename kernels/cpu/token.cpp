// One step of the recurrence in fp32: the state is decayed, the value it holds under the key is replaced, the query
// reads it. 64 columns of the state at a time stay in registers over the K rows.

#include "token.hpp"

#include "gate.hpp"
#include "lanes.hpp"
#include "rows.hpp"

namespace kdacheck::cpu {
namespace {

template <int wide>
void kda_columns(const TokenRows& token, std::int64_t K, std::int64_t stride, std::int64_t at, const float* state, float* next_state) {
  Lanes held[wide]{}, out[wide]{};
  for (std::int64_t c = 0; c < K; ++c) {
    const std::int64_t row = c * stride + at;
    const Lanes alpha = broadcast(token.alpha[c]), k = broadcast(token.k[c]);
#pragma GCC unroll 4
    for (int w = 0; w < wide; ++w) {
      const Lanes decayed = alpha * load(state + row + w * lane_count);
      store(next_state + row + w * lane_count, decayed);
      held[w] = multiply_add(k, decayed, held[w]);
    }
  }
#pragma GCC unroll 4
  for (int w = 0; w < wide; ++w) held[w] = broadcast(token.beta) * (load(token.v + at + w * lane_count) - held[w]);
  for (std::int64_t c = 0; c < K; ++c) {
    float* row = next_state + c * stride + at;
    const Lanes k = broadcast(token.k[c]), q = broadcast(token.q[c]);
#pragma GCC unroll 4
    for (int w = 0; w < wide; ++w) {
      const Lanes next = multiply_add(k, held[w], load(row + w * lane_count));
      store(row + w * lane_count, next);
      out[w] = multiply_add(q, next, out[w]);
    }
  }
  if (!token.o) return;
#pragma GCC unroll 4
  for (int w = 0; w < wide; ++w) store(token.o + at + w * lane_count, out[w]);
}

template <int wide>
void dplr_columns(const TokenRows& token, std::int64_t K, std::int64_t stride, std::int64_t at, const float* state, float* next_state) {
  Lanes read[wide]{}, out[wide]{};
  for (std::int64_t c = 0; c < K; ++c) {
    const Lanes b = broadcast(token.b[c]);
#pragma GCC unroll 4
    for (int w = 0; w < wide; ++w) read[w] = multiply_add(b, load(state + c * stride + at + w * lane_count), read[w]);
  }
  for (std::int64_t c = 0; c < K; ++c) {
    const std::int64_t row = c * stride + at;
    const Lanes alpha = broadcast(token.alpha[c]), a = broadcast(token.a[c]), k = broadcast(token.k[c]), q = broadcast(token.q[c]);
#pragma GCC unroll 4
    for (int w = 0; w < wide; ++w) {
      const Lanes removed = alpha * load(state + row + w * lane_count) - a * read[w];
      const Lanes next = multiply_add(k, load(token.v + at + w * lane_count), removed);
      store(next_state + row + w * lane_count, next);
      out[w] = multiply_add(q, next, out[w]);
    }
  }
  if (!token.o) return;
#pragma GCC unroll 4
  for (int w = 0; w < wide; ++w) store(token.o + at + w * lane_count, out[w]);
}

} // namespace

TokenRows take_token_rows(Arena& arena, const Inputs& inputs) {
  const std::int64_t K = padded(inputs.shape.K), V = padded(inputs.shape.V);
  TokenRows rows;
  for (float** row : {&rows.q, &rows.k, &rows.a, &rows.b, &rows.alpha}) *row = arena.floats(K);
  rows.v = arena.floats(V);
  rows.o = arena.floats(V);
  return rows;
}

void read_token(const Inputs& inputs, std::int64_t row, std::int64_t head, TokenRows& token) {
  const Shape& s = inputs.shape;
  const std::int64_t shared = head / (s.HV / s.H), K = padded(s.K);
  read_rows(inputs[Input::q], s, row, shared, 1, token.q);
  read_rows(inputs[Input::k], s, row, shared, 1, token.k);
  if (inputs.options.l2norm) {
    normalise_rows(token.q, 1, s.K, &token.q_inverse_norm);
    normalise_rows(token.k, 1, s.K, &token.k_inverse_norm);
  }
  for (std::int64_t c = 0; c < K; ++c) token.q[c] *= inputs.options.scale;
  read_rows(inputs[Input::v], s, row, head, 1, token.v);
  read_log_decays(inputs, row, head, 1, token.alpha);
  for (std::int64_t c = 0; c < K; c += lane_count) store(token.alpha + c, exp_of(load(token.alpha + c)));
  if (inputs.options.rule == Rule::kda) {
    read_betas(inputs, row, head, 1, &token.beta, &token.raw_beta);
  } else {
    read_rows(inputs[Input::a], s, row, head, 1, token.a);
    read_rows(inputs[Input::b], s, row, head, 1, token.b);
  }
}

void advance(const Inputs& inputs, const TokenRows& token, const float* state, float* next_state) {
  const std::int64_t K = inputs.shape.K, V = padded(inputs.shape.V);
  const bool kda = inputs.options.rule == Rule::kda;
  std::int64_t at = 0;
  for (; at + 4 * lane_count <= V; at += 4 * lane_count)
    kda ? kda_columns<4>(token, K, V, at, state, next_state) : dplr_columns<4>(token, K, V, at, state, next_state);
  for (; at < V; at += lane_count)
    kda ? kda_columns<1>(token, K, V, at, state, next_state) : dplr_columns<1>(token, K, V, at, state, next_state);
}

} // namespace kdacheck::cpu
