#pragma once
// Causal softmax attention of one head and one sequence.
//
//   p_tj = e^{s_tj - max_j s_tj} / sum_j e^{s_tj - max_j s_tj},   s_tj = scale q_t . k_j,   j <= past + t        o_t = sum_j p_tj v_j
//
// The largest score is taken off before the exponential: no score overflows, and the largest weight is 1 before division.
// Source: Vaswani et al. 2017, section 3.2.1. Sizes are the caller's to keep: the layer checks them.

#include <cstdint>
#include <span>
#include <vector>

namespace kdacheck::modules {

/// `rows` queries behind `past` earlier tokens; M = past + rows keys and values.
struct HeadAttention {
  std::int64_t past = 0, rows = 0, K = 1, V = 1;
  float scale = 1;
  std::span<const float> q, k, v; ///< [rows,K], [M,K], [M,V]
};

/// o [rows,V] in fp32. A query's result depends on its own keys and values alone, bit for bit: neither on later tokens nor
/// on how many queries the call has.
std::vector<float> causal_attention(const HeadAttention&);

struct HeadAttentionGradients {
  std::vector<float> q, k, v; ///< in their shapes
};

/// For the cotangent of o [rows,V]. The weights are computed again, row by row.
HeadAttentionGradients causal_attention_backward(const HeadAttention&, std::span<const float> d_o);

} // namespace kdacheck::modules
