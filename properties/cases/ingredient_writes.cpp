// What a token writes: beta and v, and a, b of the general rule.

#include "ingredients.hpp"

#include <algorithm>

namespace kdacheck {
namespace {

constexpr std::uint32_t every = 0xffffffffu;

/// Halving an entry costs it a bit: no more than three times before it is overwritten.
constexpr int most_halves = 3;

/// beta 2 reflects, and a reflected entry may grow by twice a value each time: at least every eighth token overwrites.
constexpr std::uint32_t reflections = 8;

double beta_at(const Recipe& recipe, const TokenPlace& at) {
  const Stream here(recipe.seed, Draw::beta, at.head, at.sequence, at.token);
  const double center = recipe.beta_center, spread = recipe.beta_spread;
  switch (recipe.betas) {
  case BetaPattern::uniform: return center + spread * (2.0 * here.uniform(0) - 1.0);
  case BetaPattern::sigmoid_gauss: return 2.0 * center * portable::sigmoid(spread * here.gaussian(0));
  case BetaPattern::near_one: return center * (1.0 - spread * here.uniform(0));
  case BetaPattern::halves: return center * here.below(3, 0);
  case BetaPattern::zero_one: return 2.0 * center * here.below(2, 0);
  case BetaPattern::one_two: return 2.0 * center * (at.token % reflections == reflections - 1 ? 1.0 : 1.0 + here.below(2, 0));
  default: return center;
  }
}

} // namespace

float stored(Format format, double x) {
  const double limit = largest(format) < largest(Format::fp32) ? largest(format) : largest(Format::fp32);
  return round_to(format, static_cast<float>(std::clamp(x, -limit, limit)));
}

std::vector<double> make_betas(const Recipe& recipe, std::uint32_t head, std::uint32_t sequence, std::int64_t length) {
  std::vector<double> betas(static_cast<std::size_t>(length));
  const auto group = static_cast<std::uint32_t>(recipe.shape.HV / recipe.shape.H);
  const bool exact_keys = recipe.keys == KeyPattern::signed_unit || recipe.keys == KeyPattern::walsh;
  std::array<int, 16> halved{};
  for (std::uint32_t t = 0; t < betas.size(); ++t) {
    double& beta = betas[t] = beta_at(recipe, {head, sequence, t});
    if (recipe.betas != BetaPattern::halves) continue;
    int& count = halved[exact_keys ? key_index(recipe, {head / group, sequence, t}) : 0];
    const bool half = beta == recipe.beta_center, full = beta > recipe.beta_center;
    if (half && count == most_halves) beta = 2.0 * recipe.beta_center;
    count = half && count < most_halves ? count + 1 : half || full ? 0 : count;
  }
  return betas;
}

float stored_beta(const Options& options, Format format, double beta) {
  if (options.beta == BetaForm::value) return stored(format, beta);
  const double logit = portable::logit(options.beta == BetaForm::sigmoid ? beta : beta / 2);
  return stored(format, std::clamp(logit, -110.0, 40.0)); // e^-110 vanishes in fp32, sigmoid(40) is 1 - 4e-18
}

double beta_of(const Options& options, float x) {
  switch (options.beta) {
  case BetaForm::value: return x;
  case BetaForm::sigmoid: return portable::sigmoid(x);
  default: return 2.0 * portable::sigmoid(x);
  }
}

void make_value(const Recipe& recipe, const TokenPlace& at, std::span<double> row) {
  const Stream here(recipe.seed, Draw::value, at.head, at.sequence, at.token);
  switch (recipe.values) {
  case ValuePattern::gaussian: here.fill_gaussian(row); break;
  case ValuePattern::constant: Stream(recipe.seed, Draw::value_base, at.head, every, every).fill_gaussian(row); break;
  case ValuePattern::small_integers:
    for (std::size_t c = 0; c < row.size(); ++c) row[c] = static_cast<double>(here.below(5, static_cast<std::uint32_t>(c))) - 2.0;
    break;
  case ValuePattern::held: std::fill(row.begin(), row.end(), 4096.0); break;
  default: std::fill(row.begin(), row.end(), 0.0); return;
  }
  for (double& x : row) x *= recipe.value_scale;
}

void make_dplr(const Recipe& recipe, const TokenPlace& at, std::span<const float> key, std::span<const double> log_alpha,
               std::span<double> a, std::span<double> b) {
  const auto unit = [&](Draw draw, std::span<double> x) {
    Stream(recipe.seed, draw, at.head, at.sequence, at.token).fill_gaussian(x);
    double sum = 0;
    for (double value : x) sum += value * value;
    for (double& value : x) value /= std::sqrt(sum);
  };
  switch (recipe.dplr) {
  case DplrPattern::of_kda: // `key` is k here; the caller multiplies a and the stored key by beta
    for (std::size_t c = 0; c < key.size(); ++c) {
      a[c] = key[c];
      b[c] = key[c] * portable::exp(log_alpha[c]);
    }
    return;
  case DplrPattern::rwkv7:
    unit(Draw::dplr_a, a);
    Stream(recipe.seed, Draw::dplr_rate, at.head, at.sequence, at.token).fill_gaussian(b);
    for (std::size_t c = 0; c < a.size(); ++c) b[c] = a[c] * portable::sigmoid(b[c]);
    return;
  default:
    unit(Draw::dplr_a, a);
    unit(Draw::dplr_b, b);
    for (std::size_t c = 0; c < a.size(); ++c) b[c] *= recipe.dplr_strength;
  }
}

} // namespace kdacheck
