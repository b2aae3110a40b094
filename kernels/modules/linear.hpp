#pragma once
// Dense projections y = x W of a layer. A row's result depends on that row alone, bit for bit: prefill and decode, packed
// and padded calls agree exactly. Sizes are the caller's to keep: the layers check them.

#include <cstdint>
#include <span>
#include <vector>

namespace kdacheck::modules {

/// W [in,out], row-major: the transpose of what PyTorch's nn.Linear stores.
struct Linear {
  std::int64_t in = 1, out = 1;
  std::span<const float> weight;
};

/// y [rows,out] of x [rows,in], fp32, each element one chain of multiply-adds.
std::vector<float> linear(const Linear&, std::int64_t rows, std::span<const float> x);

/// x^T d_y: the gradient of the weight.
std::vector<float> linear_weight_gradient(const Linear&, std::int64_t rows, std::span<const float> x, std::span<const float> d_y);

/// d_x += d_y W^T.
void add_linear_input_gradient(const Linear&, std::int64_t rows, std::span<const float> d_y, std::span<float> d_x);

} // namespace kdacheck::modules
