#pragma once
// Draws the cases of a regime and measures their tensors: what the tests of regimes are made of.

#include "../cases/recipe.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>

namespace kdacheck {

inline constexpr InputFormats fp32{};
inline constexpr std::uint64_t seeds = 24;

struct Case {
  Recipe recipe;
  Problem problem;
};

inline std::vector<Case> cases(const char* regime, const InputFormats& formats = fp32, Tier tier = Tier::quick) {
  const Regime* found = regime_named(regime);
  REQUIRE(found);
  std::vector<Case> all;
  for (std::uint64_t seed = 0; seed < seeds; ++seed) {
    const Recipe recipe = found->draw(seed, tier);
    all.push_back({recipe, make_problem(recipe, formats)});
  }
  return all;
}

inline double dot(const float* x, const float* y, std::int64_t n) {
  double sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * y[i];
  return sum;
}

inline const float* key(const Problem& p, std::int64_t row, std::int64_t h) { return p.k.data() + (row * p.shape.H + h) * p.shape.K; }

inline double key_length(const Problem& p, std::int64_t row, std::int64_t h) {
  return std::sqrt(dot(key(p, row, h), key(p, row, h), p.shape.K));
}

/// Mean cosine of the keys of neighbouring tokens.
inline double cosine_of_neighbours(const Problem& p) {
  double sum = 0;
  std::int64_t count = 0;
  for (const Sequence& sequence : sequences(p))
    for (std::int64_t row = sequence.first + 1; row < sequence.first + sequence.length; ++row)
      for (std::int64_t h = 0; h < p.shape.H; ++h, ++count)
        sum += dot(key(p, row, h), key(p, row - 1, h), p.shape.K) / (key_length(p, row, h) * key_length(p, row - 1, h));
  return count > 0 ? sum / static_cast<double>(count) : NAN;
}

struct Range {
  double least = INFINITY, most = -INFINITY;
  void add(double x) {
    least = std::min(least, x);
    most = std::max(most, x);
  }
};

inline Range range(const std::vector<float>& values) {
  Range result;
  for (float x : values) result.add(x);
  return result;
}

/// ln alpha of every element of g, whatever its form.
inline std::vector<double> log_decays(const Problem& p) {
  std::vector<double> all;
  const auto rows = static_cast<std::size_t>(p.shape.HV * p.shape.K);
  for (std::size_t at = 0; at < p.g.size(); ++at) {
    const double x = p.g[at], z = x + (p.dt_bias.empty() ? 0.0 : p.dt_bias[at % rows]);
    const double gain = p.A_log.empty() ? 0 : std::exp(static_cast<double>(p.A_log[at % rows / static_cast<std::size_t>(p.shape.K)]));
    const auto softplus = [](double y) { return y > 0 ? y + std::log1p(std::exp(-y)) : std::log1p(std::exp(y)); };
    switch (p.options.gate) {
    case GateForm::log_decay: all.push_back(x); break;
    case GateForm::softplus: all.push_back(-gain * softplus(z)); break;
    case GateForm::bounded: all.push_back(p.options.lower_bound / (1 + std::exp(-gain * z))); break;
    default: all.push_back(-softplus(-x)); break;
    }
  }
  return all;
}

inline Range decay_range(const char* regime) {
  Range result;
  for (const Case& c : cases(regime))
    for (double g : log_decays(c.problem)) result.add(-g);
  return result;
}

} // namespace kdacheck
