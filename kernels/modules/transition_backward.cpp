#include "transition_backward.hpp"

#include "../cpu/parallel.hpp"
#include "partial_lanes.hpp"

#include <algorithm>
#include <fmt/core.h>
#include <stdexcept>
#include <vector>

namespace kdacheck::modules {
namespace {

using cpu::broadcast;
using cpu::lane_count;
using cpu::Lanes;
using cpu::multiply_add;

void check_size(const char* tensor, std::size_t found, std::int64_t wanted) {
  if (static_cast<std::int64_t>(found) != wanted)
    throw std::invalid_argument(fmt::format("transition: {} has {} numbers, not {}", tensor, found, wanted));
}

void check_states(const StateShape& shape, std::span<const float> state, std::span<float> d_state) {
  const auto& [B, H, K, V] = shape;
  if (B < 0 || H < 1 || K < 1 || V < 1)
    throw std::invalid_argument(fmt::format("transition: B = {}, H = {}, K = {}, V = {} is no shape of states", B, H, K, V));
  check_size("state", state.size(), shape.elements()), check_size("d state", d_state.size(), shape.elements());
}

/// y += sum_i x_i A_i over the rows A_i of a [K,V] matrix.
void add_rows(const float* x, const float* A, std::int64_t K, std::int64_t V, float* y) {
  for (std::int64_t at = 0; at < V; at += lane_count) {
    Lanes sum = load_part(y + at, V - at);
    for (std::int64_t i = 0; i < K; ++i) sum = multiply_add(broadcast(x[i]), load_part(A + i * V + at, V - at), sum);
    store_part(y + at, sum, V - at);
  }
}

float dot_part(const float* x, const float* y, std::int64_t V) {
  Lanes sum{};
  for (std::int64_t at = 0; at < V; at += lane_count) sum = multiply_add(load_part(x + at, V - at), load_part(y + at, V - at), sum);
  return cpu::sum(sum);
}

/// row += weight m
void add_to_row(float* row, float weight, const float* m, std::int64_t V) {
  for (std::int64_t at = 0; at < V; at += lane_count)
    store_part(row + at, multiply_add(broadcast(weight), load_part(m + at, V - at), load_part(row + at, V - at)), V - at);
}

std::span<const float> rows(std::span<const float> tensor, std::int64_t head, std::int64_t width) {
  return tensor.subspan(static_cast<std::size_t>(head * width), static_cast<std::size_t>(width));
}
float* at(std::span<float> tensor, std::int64_t head, std::int64_t width) { return tensor.data() + head * width; }

} // namespace

void update_backward(const StateShape& shape, const KdaStep& step, std::span<const float> state, std::span<float> d_state,
                     const KdaStepGradients& d) {
  const std::int64_t heads = shape.B * shape.H, K = shape.K, V = shape.V;
  check_states(shape, state, d_state);
  check_size("alpha", step.alpha.size(), heads * K), check_size("d alpha", d.alpha.size(), heads * K);
  check_size("k", step.k.size(), heads * K), check_size("d k", d.k.size(), heads * K);
  check_size("beta", step.beta.size(), heads), check_size("d beta", d.beta.size(), heads);
  check_size("v", step.v.size(), heads * V), check_size("d v", d.v.size(), heads * V);
  cpu::for_each_task(heads, {}, 0, 4.0 * static_cast<double>(shape.elements()), [&](std::int64_t head, std::byte*) {
    const float *alpha = rows(step.alpha, head, K).data(), *k = rows(step.k, head, K).data(), *v = rows(step.v, head, V).data();
    const float *S = state.data() + head * K * V, beta = step.beta[static_cast<std::size_t>(head)];
    float* G = d_state.data() + head * K * V;
    std::vector<float> read(static_cast<std::size_t>(K)), w(static_cast<std::size_t>(V), 0.0f), m(w.size(), 0.0f);
    for (std::int64_t i = 0; i < K; ++i) read[static_cast<std::size_t>(i)] = k[i] * alpha[i];
    add_rows(read.data(), S, K, V, w.data()), add_rows(k, G, K, V, m.data());
    for (std::int64_t j = 0; j < V; ++j) {
      w[static_cast<std::size_t>(j)] = v[j] - w[static_cast<std::size_t>(j)];
      at(d.v, head, V)[j] = beta * m[static_cast<std::size_t>(j)];
    }
    d.beta[static_cast<std::size_t>(head)] = dot_part(m.data(), w.data(), V);
    for (std::int64_t i = 0; i < K; ++i) {
      at(d.k, head, K)[i] = beta * (dot_part(G + i * V, w.data(), V) - alpha[i] * dot_part(S + i * V, m.data(), V));
      add_to_row(G + i * V, -beta * k[i], m.data(), V);
      at(d.alpha, head, K)[i] = dot_part(G + i * V, S + i * V, V);
      for (std::int64_t j = 0; j < V; ++j) G[i * V + j] *= alpha[i];
    }
  });
}

void update_backward(const StateShape& shape, const DplrStep& step, std::span<const float> state, std::span<float> d_state,
                     const DplrStepGradients& d) {
  const std::int64_t heads = shape.B * shape.H, K = shape.K, V = shape.V;
  check_states(shape, state, d_state);
  check_size("d", step.d.size(), heads * K), check_size("d d", d.d.size(), heads * K);
  check_size("a", step.a.size(), heads * K), check_size("d a", d.a.size(), heads * K);
  check_size("b", step.b.size(), heads * K), check_size("d b", d.b.size(), heads * K);
  check_size("k", step.k.size(), heads * K), check_size("d k", d.k.size(), heads * K);
  check_size("v", step.v.size(), heads * V), check_size("d v", d.v.size(), heads * V);
  cpu::for_each_task(heads, {}, 0, 4.0 * static_cast<double>(shape.elements()), [&](std::int64_t head, std::byte*) {
    const float *decay = rows(step.d, head, K).data(), *a = rows(step.a, head, K).data(), *b = rows(step.b, head, K).data();
    const float *k = rows(step.k, head, K).data(), *v = rows(step.v, head, V).data(), *S = state.data() + head * K * V;
    float *G = d_state.data() + head * K * V, *d_v = at(d.v, head, V);
    std::vector<float> p(static_cast<std::size_t>(V), 0.0f), n(p.size(), 0.0f);
    std::fill_n(d_v, V, 0.0f);
    add_rows(b, S, K, V, p.data()), add_rows(a, G, K, V, n.data()), add_rows(k, G, K, V, d_v);
    for (std::int64_t i = 0; i < K; ++i) {
      at(d.k, head, K)[i] = dot_part(G + i * V, v, V);
      at(d.a, head, K)[i] = -dot_part(G + i * V, p.data(), V);
      at(d.b, head, K)[i] = -dot_part(S + i * V, n.data(), V);
      at(d.d, head, K)[i] = dot_part(G + i * V, S + i * V, V);
      for (std::int64_t j = 0; j < V; ++j) G[i * V + j] *= decay[i];
      add_to_row(G + i * V, -b[i], n.data(), V);
    }
  });
}

} // namespace kdacheck::modules
