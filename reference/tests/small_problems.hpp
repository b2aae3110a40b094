#pragma once
// Small random problems with every option, for the tests of this folder.

#include "../problem.hpp"

#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace kdacheck {

struct SmallProblem {
  Shape shape{.B = 1, .T = 7, .H = 1, .HV = 2, .K = 3, .V = 2};
  Options options{};
  std::vector<std::int64_t> lengths{}; ///< packed; empty: B sequences of T
  bool initial_state = true, dt_bias = true, d_o = true, d_final_state = true;
};

/// Values of order one, keys of norm about one, the same for the same seed.
inline Problem make_small(SmallProblem ask, std::uint64_t seed) {
  std::mt19937_64 bits(seed);
  const auto uniform = [&](double low, double high) {
    return static_cast<float>(low + (high - low) * static_cast<double>(bits() >> 11) * 0x1p-53);
  };
  Problem problem;
  problem.options = ask.options;
  if (!ask.lengths.empty()) {
    ask.shape.B = 1, ask.shape.T = 0;
    problem.cu_seqlens = {0};
    for (std::int64_t length : ask.lengths) problem.cu_seqlens.push_back(ask.shape.T += length);
  }
  problem.shape = ask.shape;
  const Options& options = ask.options;
  const bool parametric = options.gate == GateForm::softplus || options.gate == GateForm::bounded;
  const auto fill = [&](std::vector<float>& values, const std::array<std::int64_t, 4>& shape, double low, double high) {
    values.resize(static_cast<std::size_t>(shape[0] * shape[1] * shape[2] * shape[3]));
    for (float& value : values) value = uniform(low, high);
  };
  const std::int64_t N = sequence_count(problem);
  const auto input = [&](Input which, double low, double high) { fill(problem[which], shape_of(which, ask.shape, N), low, high); };
  const double unit = std::sqrt(3.0 / static_cast<double>(ask.shape.K)); // |x| is about 1 for entries in [-unit, unit]
  input(Input::q, -unit, unit);
  input(Input::k, -unit, unit);
  input(Input::v, -1, 1);
  if (options.gate == GateForm::log_decay) input(Input::g, -2, 0);
  if (parametric || options.gate == GateForm::sigmoid) input(Input::g, -2, 3);
  if (parametric) input(Input::A_log, -2, 0.5);
  if (parametric && ask.dt_bias) input(Input::dt_bias, -1, 1);
  if (options.rule == Rule::dplr) {
    input(Input::a, -unit, unit);
    input(Input::b, -unit, unit);
  } else if (options.beta == BetaForm::value) {
    input(Input::beta, 0, 1.5);
  } else {
    input(Input::beta, -3, 3);
  }
  if (ask.initial_state) input(Input::initial_state, -1, 1);
  if (ask.d_o) fill(problem.d_o, shape_of(Output::o, ask.shape, N), -1, 1);
  if (ask.d_final_state) fill(problem.d_final_state, shape_of(Output::final_state, ask.shape, N), -1, 1);
  return problem;
}

/// Every combination of rule, gate form, beta form and normalisation, with scale 0.625.
inline std::vector<Options> every_option() {
  std::vector<Options> result;
  for (Rule rule : {Rule::kda, Rule::dplr})
    for (GateForm gate : {GateForm::log_decay, GateForm::softplus, GateForm::bounded, GateForm::sigmoid, GateForm::absent})
      for (BetaForm beta : {BetaForm::value, BetaForm::sigmoid, BetaForm::twice_sigmoid})
        for (bool l2norm : {false, true})
          if (rule == Rule::kda || beta == BetaForm::value)
            result.push_back({.rule = rule, .gate = gate, .beta = beta, .l2norm = l2norm, .scale = 0.625f});
  return result;
}

inline std::string describe(const Options& options) {
  return std::string(name(options.rule)) + " gate " + std::string(name(options.gate)) + " beta " + std::string(name(options.beta)) +
         (options.l2norm ? " l2norm" : "");
}

} // namespace kdacheck
