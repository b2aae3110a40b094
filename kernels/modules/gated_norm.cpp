#include "gated_norm.hpp"

#include "gate_lanes.hpp"
#include "partial_lanes.hpp"

#include <algorithm>
#include <cmath>

namespace kdacheck::modules {
namespace {

using cpu::lane_count;

/// 1 / sqrt(mean o^2 + epsilon): sum of squares in fp32 lanes, the rest in fp64.
float inverse_rms(const GatedNorm& norm, const float* o) {
  Lanes squares{};
  for (std::int64_t j = 0; j < norm.V; j += lane_count) {
    const Lanes x = load_part(o + j, norm.V - j);
    squares = cpu::multiply_add(x, x, squares);
  }
  return static_cast<float>(
      1 / std::sqrt(static_cast<double>(cpu::sum(squares)) / static_cast<double>(norm.V) + static_cast<double>(norm.epsilon)));
}

} // namespace

std::vector<float> gated_norm(const GatedNorm& norm, std::int64_t rows, std::span<const float> o, std::span<const float> gate) {
  std::vector<float> z(o.size());
#pragma omp parallel for schedule(static) if (o.size() > (1 << 16))
  for (std::int64_t group = 0; group < rows * norm.heads; ++group) {
    const std::int64_t at = group * norm.V;
    const Lanes r = cpu::broadcast(inverse_rms(norm, o.data() + at));
    for (std::int64_t j = 0; j < norm.V; j += lane_count) {
      const std::int64_t width = norm.V - j;
      const Lanes n = load_part(o.data() + at + j, width) * r;
      store_part(z.data() + at + j, n * load_part(norm.weight.data() + j, width) * Logistic(load_part(gate.data() + at + j, width)).rising,
                 width);
    }
  }
  return z;
}

GatedNormGradients gated_norm_backward(const GatedNorm& norm, std::int64_t rows, std::span<const float> o, std::span<const float> gate,
                                       std::span<const float> d_z) {
  GatedNormGradients d{std::vector<float>(o.size()), std::vector<float>(o.size()), std::vector<float>(static_cast<std::size_t>(norm.V))};
  std::vector<float> to_weight(o.size());
#pragma omp parallel for schedule(static) if (o.size() > (1 << 16))
  for (std::int64_t group = 0; group < rows * norm.heads; ++group) {
    const std::int64_t at = group * norm.V;
    const Lanes r = cpu::broadcast(inverse_rms(norm, o.data() + at));
    Lanes along{};
    for (std::int64_t j = 0; j < norm.V; j += lane_count) {
      const std::int64_t width = norm.V - j;
      const Lanes n = load_part(o.data() + at + j, width) * r, w = load_part(norm.weight.data() + j, width);
      const Logistic logistic(load_part(gate.data() + at + j, width));
      const Lanes arriving = load_part(d_z.data() + at + j, width), d_n = arriving * w * logistic.rising;
      store_part(d.gate.data() + at + j, arriving * n * w * (logistic.rising * logistic.falling), width);
      store_part(to_weight.data() + at + j, arriving * n * logistic.rising, width);
      store_part(d.o.data() + at + j, d_n, width);
      along = cpu::multiply_add(d_n, n, along);
    }
    const Lanes mean = cpu::broadcast(cpu::sum(along) / static_cast<float>(norm.V));
    for (std::int64_t j = 0; j < norm.V; j += lane_count) {
      const std::int64_t width = norm.V - j;
      const Lanes n = load_part(o.data() + at + j, width) * r;
      store_part(d.o.data() + at + j, r * (load_part(d.o.data() + at + j, width) - n * mean), width);
    }
  }
  for (std::int64_t j = 0; j < norm.V; ++j) {
    double sum = 0;
    for (std::int64_t group = 0; group < rows * norm.heads; ++group)
      sum += static_cast<double>(to_weight[static_cast<std::size_t>(group * norm.V + j)]);
    d.weight[static_cast<std::size_t>(j)] = static_cast<float>(sum);
  }
  return d;
}

} // namespace kdacheck::modules
