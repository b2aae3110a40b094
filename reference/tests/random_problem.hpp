#pragma once
// Small random problems of every kind for the tests of the certified truth: biased to corners.

#include "../problem.hpp"

#include <cmath>
#include <random>

namespace kdacheck::test {

/// A problem that only its seed decides. Kinds: every gate, beta form, rule, grouping, packing; keys longer than 1; beta
/// beyond 2; decays from none to total; large and tiny values.
inline Problem random_problem(std::uint64_t seed, std::int64_t largest_T = 6, std::int64_t largest_K = 5, std::int64_t largest_V = 4) {
  std::mt19937_64 bits(seed * 0x9e3779b97f4a7c15u + 1);
  const auto below = [&](std::int64_t n) { return static_cast<std::int64_t>(bits() % static_cast<std::uint64_t>(n)); };
  const auto uniform = [&] { return static_cast<double>(bits() >> 11) * 0x1p-53; };
  const auto spread = [&] { return uniform() + uniform() + uniform() + uniform() - 2; };
  Problem p;
  p.options.rule = below(4) == 0 ? Rule::dplr : Rule::kda;
  p.options.gate = static_cast<GateForm>(below(5));
  p.options.beta = static_cast<BetaForm>(below(3));
  if (p.options.rule == Rule::dplr) p.options.beta = BetaForm::value;
  p.options.l2norm = below(3) == 0;
  p.options.scale = below(4) == 0 ? -1.75f : 0.3f;
  p.options.lower_bound = below(2) ? -5.0f : -0.5f;
  p.shape.H = 1 + below(2);
  p.shape.HV = p.shape.H * (1 + below(2));
  p.shape.K = 1 + below(largest_K);
  p.shape.V = 1 + below(largest_V);
  p.shape.T = below(largest_T + 1);
  if (below(3) == 0) {
    const std::int64_t cut = p.shape.T ? below(p.shape.T + 1) : 0;
    p.cu_seqlens = {0, cut, cut, p.shape.T};
  } else {
    p.shape.B = 1 + below(2);
  }
  const std::int64_t N = sequence_count(p);
  const auto fill = [&](std::vector<float>& tensor, const std::array<std::int64_t, 4>& shape, auto draw) {
    tensor.resize(static_cast<std::size_t>(shape[0] * shape[1] * shape[2] * shape[3]));
    for (float& x : tensor) x = static_cast<float>(draw());
  };
  const double key_size = std::array{1.0, 1.5, 1e-3, 30.0, 1e-20}[static_cast<std::size_t>(below(5))];
  const double value_size = std::array{1.0, 1.0, 1e6, 1e-30}[static_cast<std::size_t>(below(4))];
  fill(p.q, shape_of(Input::q, p.shape, N), spread);
  fill(p.k, shape_of(Input::k, p.shape, N), [&] { return key_size * spread() / std::sqrt(static_cast<double>(p.shape.K)); });
  fill(p.v, shape_of(Input::v, p.shape, N), [&] { return value_size * spread(); });
  const std::int64_t decays = below(6);
  const auto log_decay = [&]() -> double {
    switch (decays) {
    case 0: return 0;
    case 1: return -1e-4 * uniform();
    case 2: return -std::exp(12 * uniform() - 8);
    case 3: return below(3) ? -0.1 * uniform() : -1000.0;
    case 4: return below(2) ? -1e6 : -300 * uniform();
    default: return -5 * uniform();
    }
  };
  const bool extreme = below(4) == 0;
  if (p.options.gate != GateForm::absent)
    fill(p.g, shape_of(Input::g, p.shape, N),
         [&] { return p.options.gate == GateForm::log_decay ? log_decay() : (extreme ? 60 : 3) * spread(); });
  if (p.options.rule == Rule::kda) {
    const std::int64_t strengths = below(6);
    fill(p.beta, shape_of(Input::beta, p.shape, N), [&]() -> double {
      if (p.options.beta != BetaForm::value) return (extreme ? 40 : 3) * spread();
      switch (strengths) {
      case 0: return 0;
      case 1: return 1;
      case 2: return 2 * uniform();
      case 3: return 4 * uniform();
      case 4: return -uniform();
      default: return uniform();
      }
    });
  } else {
    fill(p.a, shape_of(Input::a, p.shape, N), spread);
    fill(p.b, shape_of(Input::b, p.shape, N), spread);
  }
  if (p.options.gate == GateForm::softplus || p.options.gate == GateForm::bounded) {
    fill(p.A_log, shape_of(Input::A_log, p.shape, N), [&]() -> double { return below(8) == 0 ? -INFINITY : (extreme ? 8 : 2) * spread(); });
    if (below(3)) fill(p.dt_bias, shape_of(Input::dt_bias, p.shape, N), spread);
  }
  if (below(2)) fill(p.initial_state, shape_of(Input::initial_state, p.shape, N), spread);
  const std::int64_t losses = below(4);
  if (losses != 0) fill(p.d_o, shape_of(Output::o, p.shape, N), spread);
  if (losses != 1) fill(p.d_final_state, shape_of(Output::final_state, p.shape, N), spread);
  return p;
}

} // namespace kdacheck::test
