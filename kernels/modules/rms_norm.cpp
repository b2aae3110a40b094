#include "rms_norm.hpp"

#include "partial_lanes.hpp"

#include <cmath>

namespace kdacheck::modules {
namespace {

using cpu::lane_count, cpu::Lanes;

float inverse_rms(const RmsNorm& norm, const float* x) {
  Lanes squares{};
  for (std::int64_t j = 0; j < norm.width; j += lane_count) {
    const Lanes part = load_part(x + j, norm.width - j);
    squares = cpu::multiply_add(part, part, squares);
  }
  const double mean = static_cast<double>(cpu::sum(squares)) / static_cast<double>(norm.width);
  return static_cast<float>(1 / std::sqrt(mean + static_cast<double>(norm.epsilon)));
}

} // namespace

std::vector<float> rms_norm(const RmsNorm& norm, std::int64_t rows, std::span<const float> x) {
  std::vector<float> y(x.size());
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int64_t at = row * norm.width;
    const Lanes r = cpu::broadcast(inverse_rms(norm, x.data() + at));
    for (std::int64_t j = 0; j < norm.width; j += lane_count) {
      const std::int64_t rest = norm.width - j;
      store_part(y.data() + at + j, load_part(x.data() + at + j, rest) * r * load_part(norm.weight.data() + j, rest), rest);
    }
  }
  return y;
}

RmsNormGradients rms_norm_backward(const RmsNorm& norm, std::int64_t rows, std::span<const float> x, std::span<const float> d_y) {
  RmsNormGradients d{std::vector<float>(x.size()), {}};
  std::vector<double> weight(static_cast<std::size_t>(norm.width), 0.0);
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int64_t at = row * norm.width;
    const float inverse = inverse_rms(norm, x.data() + at);
    const Lanes r = cpu::broadcast(inverse);
    Lanes along{};
    for (std::int64_t j = 0; j < norm.width; j += lane_count) {
      const std::int64_t rest = norm.width - j;
      const Lanes d_n = load_part(d_y.data() + at + j, rest) * load_part(norm.weight.data() + j, rest);
      along = cpu::multiply_add(d_n, load_part(x.data() + at + j, rest) * r, along);
    }
    const Lanes mean = cpu::broadcast(cpu::sum(along) / static_cast<float>(norm.width));
    for (std::int64_t j = 0; j < norm.width; j += lane_count) {
      const std::int64_t rest = norm.width - j;
      const Lanes n = load_part(x.data() + at + j, rest) * r;
      const Lanes d_n = load_part(d_y.data() + at + j, rest) * load_part(norm.weight.data() + j, rest);
      store_part(d.x.data() + at + j, r * (d_n - n * mean), rest);
    }
    for (std::int64_t j = 0; j < norm.width; ++j) {
      const auto i = static_cast<std::size_t>(at + j);
      weight[static_cast<std::size_t>(j)] += static_cast<double>(d_y[i] * (x[i] * inverse));
    }
  }
  d.weight.assign(weight.begin(), weight.end());
  return d;
}

} // namespace kdacheck::modules
