#pragma once
// The causal depthwise convolution over a few tokens that a linear-attention layer has on q, k and v, with swish:
//
//   a_t = bias + sum_j w_j (.) u_{t - (width - 1) + j}       y_t = a_t sigmoid(a_t)       per channel
//
// w_{width-1} meets the current token; what lies before a sequence comes from its state, or is zero. The state holds the last
// width - 1 inputs u, oldest first: another token's history never enters. Sources: Kimi Linear technical report (arXiv
// 2510.26692), section 4; flash-linear-attention's ShortConvolution, whose cache holds one input more.

#include <cstdint>
#include <span>
#include <vector>

namespace kdacheck::modules {

/// Sizes and parameters; bias may be empty (zero).
struct ShortConvolution {
  std::int64_t channels = 1, width = 4;
  std::span<const float> weight; ///< [channels,width]
  std::span<const float> bias;   ///< [channels]
  std::int64_t history() const { return width - 1; }
};

/// Of R tokens: a is kept for the backward pass.
struct Convolved {
  std::vector<float> a, y;  ///< [R,channels]
  std::vector<float> state; ///< [N,history,channels] after the last tokens
};

/// u [R,channels]; cu_seqlens [N+1]; state [N,history,channels] or empty (zero). fp32, the products of a token summed in
/// order of j, the current token last.
Convolved convolve(const ShortConvolution&, std::span<const std::int64_t> cu_seqlens, std::span<const float> u,
                   std::span<const float> state);

/// Gradients in the shapes of their primals; bias is empty where the module has none.
struct ConvolutionGradients {
  std::vector<float> u, state, weight, bias;
};

/// For the cotangents of y and of the state after the last tokens (empty: zero). Sums over tokens run in fp64.
ConvolutionGradients convolve_backward(const ShortConvolution&, std::span<const std::int64_t> cu_seqlens, std::span<const float> u,
                                       std::span<const float> state, std::span<const float> a, std::span<const float> d_y,
                                       std::span<const float> d_state);

} // namespace kdacheck::modules
