// Scores of a band of queries are one matrix product; what a row does with them stops at its own token, so that numbers of
// later tokens, infinities too, are never read. Rows are padded with zeros to multiples of sixteen.

#include "causal_attention.hpp"

#include "../cpu/lanes.hpp"
#include "../cpu/product.hpp"
#include "gating_projection.hpp"
#include "partial_lanes.hpp"

#include <algorithm>
#include <limits>

namespace kdacheck::modules {
namespace {

using cpu::lane_count, cpu::Lanes;

constexpr std::int64_t band = 16; // queries

float largest(const float* scores, std::int64_t count) {
  float result = -std::numeric_limits<float>::infinity();
  for (std::int64_t j = 0; j < count; ++j) result = scores[j] > result ? scores[j] : result; // NaN is left to the exponential
  return result;
}

/// Scores of one row to weights in place; those from `count` on are not read.
void softmax(float scale, float* scores, std::int64_t count) {
  for (std::int64_t j = 0; j < count; ++j) scores[j] *= scale;
  const Lanes top = cpu::broadcast(largest(scores, count));
  float total = 0;
  for (std::int64_t j = 0; j < count; j += lane_count) {
    Lanes weight = cpu::exp_of(load_part(scores + j, count - j) - top);
    for (std::int64_t lane = count - j; lane < lane_count; ++lane) weight[lane] = 0;
    store_part(scores + j, weight, count - j);
    total += cpu::sum(weight);
  }
  for (std::int64_t j = 0; j < count; ++j) scores[j] /= total;
}

std::vector<float> unpadded(const std::vector<float>& rows, std::int64_t count, std::int64_t width, std::int64_t stride) {
  std::vector<float> result;
  result.reserve(static_cast<std::size_t>(count * width));
  for (std::int64_t i = 0; i < count; ++i) result.insert(result.end(), rows.begin() + i * stride, rows.begin() + i * stride + width);
  return result;
}

/// Calls visit(first query, number of them, weights, their stride) band by band; weights beyond a row's own tokens are not set.
template <class Visit> void for_each_band(const HeadAttention& a, Visit visit) {
  const PaddedMatrix keys = padded_transpose(a.k, a.past + a.rows, a.K);
  std::vector<float> weights(static_cast<std::size_t>(band * keys.stride));
  for (std::int64_t first = 0; first < a.rows; first += band) {
    const std::int64_t count = std::min(band, a.rows - first), columns = cpu::padded(a.past + first + count);
    cpu::product(count, columns, a.K, {a.q.data() + first * a.K, a.K, 1}, keys.data, keys.stride, cpu::Into::assign, weights.data(),
                 keys.stride);
    for (std::int64_t i = 0; i < count; ++i) softmax(a.scale, weights.data() + i * keys.stride, a.past + first + i + 1);
    visit(first, count, weights.data(), keys.stride);
  }
}

} // namespace

std::vector<float> causal_attention(const HeadAttention& a) {
  const PaddedMatrix values = padded_matrix(a.v, a.past + a.rows, a.V);
  std::vector<float> o(static_cast<std::size_t>(a.rows * values.stride));
  for_each_band(a, [&](std::int64_t first, std::int64_t count, const float* weights, std::int64_t stride) {
    for (std::int64_t i = 0; i < count; ++i)
      cpu::product(1, values.stride, a.past + first + i + 1, {weights + i * stride, stride, 1}, values.data, values.stride,
                   cpu::Into::assign, o.data() + (first + i) * values.stride, values.stride);
  });
  return unpadded(o, a.rows, a.V, values.stride);
}

HeadAttentionGradients causal_attention_backward(const HeadAttention& a, std::span<const float> d_o) {
  const std::int64_t M = a.past + a.rows;
  const PaddedMatrix queries = padded_matrix(a.q, a.rows, a.K), keys = padded_matrix(a.k, M, a.K);
  const PaddedMatrix values = padded_transpose(a.v, M, a.V), arriving = padded_matrix(d_o, a.rows, a.V);
  std::vector<float> d_q(static_cast<std::size_t>(a.rows * keys.stride)), d_k(static_cast<std::size_t>(M * keys.stride));
  std::vector<float> d_v(static_cast<std::size_t>(M * arriving.stride)), d_s(static_cast<std::size_t>(band * values.stride));
  for_each_band(a, [&](std::int64_t first, std::int64_t count, const float* weights, std::int64_t stride) {
    const std::int64_t columns = cpu::padded(a.past + first + count);
    cpu::product(count, columns, a.V, {d_o.data() + first * a.V, a.V, 1}, values.data, values.stride, cpu::Into::assign, d_s.data(),
                 values.stride);
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t seen = a.past + first + i + 1, row = first + i;
      const float* p = weights + i * stride;
      float* slope = d_s.data() + i * values.stride; // d p, then d (q . k)
      Lanes along{};
      for (std::int64_t j = 0; j < seen; j += lane_count)
        along = cpu::multiply_add(load_part(p + j, seen - j), load_part(slope + j, seen - j), along);
      const float mean = cpu::sum(along);
      for (std::int64_t j = 0; j < seen; ++j) slope[j] = p[j] * (slope[j] - mean) * a.scale;
      cpu::product(1, keys.stride, seen, {slope, values.stride, 1}, keys.data, keys.stride, cpu::Into::assign,
                   d_q.data() + row * keys.stride, keys.stride);
      cpu::product(seen, keys.stride, 1, {slope, 1, 1}, queries.data + row * queries.stride, queries.stride, cpu::Into::add, d_k.data(),
                   keys.stride);
      cpu::product(seen, arriving.stride, 1, {p, 1, 1}, arriving.data + row * arriving.stride, arriving.stride, cpu::Into::add, d_v.data(),
                   arriving.stride);
    }
  });
  return {unpadded(d_q, a.rows, a.K, keys.stride), unpadded(d_k, M, a.K, keys.stride), unpadded(d_v, M, a.V, arriving.stride)};
}

} // namespace kdacheck::modules
