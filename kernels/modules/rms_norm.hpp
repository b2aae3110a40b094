#pragma once
// RMSNorm of whole rows: y_j = w_j x_j / sqrt(mean_i x_i^2 + epsilon). Source: Zhang and Sennrich 2019, epsilon under the root. Sizes are
// the caller's to keep: the layers check them.

#include <cstdint>
#include <span>
#include <vector>

namespace kdacheck::modules {

struct RmsNorm {
  std::int64_t width = 1;
  float epsilon = 1e-5f;
  std::span<const float> weight; ///< [width]
};

/// y of x, both [rows,width], in fp32. A row's result depends on that row alone, bit for bit.
std::vector<float> rms_norm(const RmsNorm&, std::int64_t rows, std::span<const float> x);

struct RmsNormGradients {
  std::vector<float> x;      ///< [rows,width]
  std::vector<float> weight; ///< [width]
};

/// For the cotangent of y. The weight's sum over rows runs in fp64, in order.
RmsNormGradients rms_norm_backward(const RmsNorm&, std::int64_t rows, std::span<const float> x, std::span<const float> d_y);

} // namespace kdacheck::modules
