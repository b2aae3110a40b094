#pragma once
// Small random problems for tests of budgets and verdicts: no recipe, so that these tests stand on their own.

#include "../../reference/problem.hpp"
#include "../perturbed/lanes.hpp"

#include <cmath>
#include <cstdint>
#include <vector>

namespace kdacheck::testing {

/// A stream of numbers that are the same everywhere.
struct Numbers {
  std::uint64_t state;
  double uniform() { return static_cast<double>(scatter(++state) >> 11) * 0x1p-53; }
  double normal() { // sum of twelve: close enough to Gaussian
    double sum = -6;
    for (int i = 0; i < 12; ++i) sum += uniform();
    return sum;
  }
};

struct Drawn {
  Shape shape{.B = 1, .T = 40, .H = 1, .HV = 1, .K = 16, .V = 16};
  double decay = 0.05;    ///< mean |g|
  double correlation = 0; ///< of the keys with one direction
  double beta_least = 0, beta_most = 1;
  double value_scale = 1;
  bool state = true;
  Rule rule = Rule::kda;
  InputFormats formats{Format::bf16, Format::fp32, Format::fp32};
  std::uint64_t seed = 1;
};

/// Unit keys and queries, values of the given size, decays spread by a factor of two, dense cotangents.
inline Problem draw(const Drawn& d) {
  Numbers numbers{scatter(d.seed)};
  const Shape& s = d.shape;
  Problem p;
  p.shape = s;
  p.formats = d.formats;
  p.options.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(s.K)));
  std::vector<double> base(static_cast<std::size_t>(s.K));
  for (double& x : base) x = numbers.normal();
  const auto unit_rows = [&](std::vector<float>& rows, double correlation) {
    for (std::int64_t row = 0; row < s.B * s.T * s.H; ++row) {
      std::vector<double> x(base);
      double squares = 0;
      for (double& element : x) {
        element = correlation * element + (1 - correlation) * numbers.normal();
        squares += element * element;
      }
      for (double element : x) rows.push_back(round_to(d.formats.qkv, static_cast<float>(element / std::sqrt(squares + 1e-30))));
    }
  };
  unit_rows(p.q, d.correlation / 2);
  unit_rows(p.k, d.correlation);
  for (std::int64_t i = 0; i < s.B * s.T * s.HV * s.V; ++i)
    p.v.push_back(round_to(d.formats.qkv, static_cast<float>(d.value_scale * numbers.normal())));
  for (std::int64_t i = 0; i < s.B * s.T * s.HV * s.K; ++i)
    p.g.push_back(round_to(d.formats.gate, static_cast<float>(-d.decay * (0.5 + numbers.uniform()))));
  p.options.rule = d.rule;
  if (d.rule == Rule::dplr)
    for (std::int64_t i = 0; i < s.B * s.T * s.HV * s.K; ++i)
      for (auto* rows : {&p.a, &p.b})
        rows->push_back(round_to(d.formats.qkv, static_cast<float>(0.7 * numbers.normal() / std::sqrt(static_cast<double>(s.K)))));
  for (std::int64_t i = 0; d.rule == Rule::kda && i < s.B * s.T * s.HV; ++i)
    p.beta.push_back(round_to(d.formats.beta, static_cast<float>(d.beta_least + (d.beta_most - d.beta_least) * numbers.uniform())));
  if (d.state)
    for (std::int64_t i = 0; i < s.B * s.HV * s.K * s.V; ++i)
      p.initial_state.push_back(static_cast<float>(d.value_scale * numbers.normal()));
  for (std::int64_t i = 0; i < s.B * s.T * s.HV * s.V; ++i) p.d_o.push_back(round_to(d.formats.qkv, static_cast<float>(numbers.normal())));
  for (std::int64_t i = 0; i < s.B * s.HV * s.K * s.V; ++i) p.d_final_state.push_back(static_cast<float>(numbers.normal()));
  return p;
}

} // namespace kdacheck::testing
