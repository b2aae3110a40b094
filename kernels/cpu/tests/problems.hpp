#pragma once
// Small problems for the kernels' own tests.

#include "../../../reference/problem.hpp"

#include <algorithm>
#include <cmath>
#include <random>

namespace kdacheck::tests {

/// What a test varies; the rest is drawn from the seed. All q, k, v, a, b, g and beta are exact in bf16.
struct Draw {
  Shape shape{.B = 1, .T = 40, .H = 1, .HV = 1, .K = 16, .V = 16};
  Options options{};
  std::vector<std::int64_t> cu_seqlens{};
  bool initial_state = true, d_o = true, d_final_state = true;
  double decay = 0.5;  ///< log decays are exponentially distributed with this mean, sign changed
  double spread = 1.0; ///< of keys about a common direction; small: nearly the same key
  double beta_max = 1;
  std::uint32_t seed = 1;
};

inline Problem draw(const Draw& wanted) {
  std::mt19937 bits(wanted.seed);
  const auto uniform = [&] { return (static_cast<double>(bits()) + 0.5) * 0x1p-32; };
  const auto normal = [&] { return std::sqrt(-2 * std::log(uniform())) * std::cos(6.283185307179586 * uniform()); };
  Problem p;
  p.shape = wanted.shape;
  p.options = wanted.options;
  p.cu_seqlens = wanted.cu_seqlens;
  const auto [B, T, H, HV, K, V] = p.shape;
  const std::int64_t N = sequence_count(p);
  const auto fill = [](std::vector<float>& to, std::int64_t size, auto next) {
    to.resize(static_cast<std::size_t>(size));
    for (float& x : to) x = round_bf16(static_cast<float>(next()));
  };
  const double level = wanted.options.l2norm ? 1 : 1 / std::sqrt(static_cast<double>(K));
  std::vector<double> common(static_cast<std::size_t>(K));
  for (double& x : common) x = normal();
  std::size_t channel = 0;
  fill(p.q, B * T * H * K, [&] { return normal() * level; });
  fill(p.k, B * T * H * K, [&] {
    const double shared = std::sqrt(1 - wanted.spread * wanted.spread) * common[channel++ % common.size()];
    return (shared + wanted.spread * normal()) * level;
  });
  fill(p.v, B * T * HV * V, normal);
  const auto gate = wanted.options.gate;
  if (gate == GateForm::log_decay)
    fill(p.g, B * T * HV * K, [&] { return wanted.decay * std::log(uniform()); });
  else if (gate != GateForm::absent)
    fill(p.g, B * T * HV * K, [&] { return 2 * normal(); });
  if (gate == GateForm::softplus || gate == GateForm::bounded) {
    fill(p.A_log, HV, [&] { return uniform() - 1; });
    fill(p.dt_bias, HV * K, [&] { return normal() - 1; });
  }
  if (wanted.options.rule == Rule::kda) {
    const bool value = wanted.options.beta == BetaForm::value;
    fill(p.beta, B * T * HV, [&] { return value ? wanted.beta_max * uniform() : normal(); });
  } else {
    fill(p.a, B * T * HV * K, [&] { return 0.5 * normal() / std::sqrt(static_cast<double>(K)); });
    fill(p.b, B * T * HV * K, [&] { return normal() / std::sqrt(static_cast<double>(K)); });
  }
  p.options.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(K)));
  if (wanted.initial_state) fill(p.initial_state, N * HV * K * V, normal);
  if (wanted.d_o) fill(p.d_o, B * T * HV * V, normal);
  if (wanted.d_final_state) fill(p.d_final_state, N * HV * K * V, normal);
  return p;
}

/// Largest in-chunk sum of |log decay|, cut off as the kernels do: the error of an exponent is in proportion to it.
inline double deepest(const Problem& problem, std::int64_t chunk) {
  if (problem.options.gate == GateForm::absent) return 0;
  if (problem.options.gate != GateForm::log_decay) return 5.0 * static_cast<double>(chunk);
  const auto row = static_cast<std::size_t>(problem.shape.HV * problem.shape.K);
  double deepest = 0;
  for (std::size_t channel = 0; channel < row; ++channel)
    for (std::size_t first = channel; first < problem.g.size(); first += row * static_cast<std::size_t>(chunk)) {
      double sum = 0;
      for (std::size_t at = first; at < problem.g.size() && at < first + row * static_cast<std::size_t>(chunk); at += row)
        sum += std::min(104.0, std::fabs(static_cast<double>(problem.g[at])));
      deepest = std::max(deepest, sum);
    }
  return deepest;
}

} // namespace kdacheck::tests
