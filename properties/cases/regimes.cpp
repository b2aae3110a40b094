#include "regime_drawing.hpp"

#include <algorithm>

namespace kdacheck {
namespace {

/// FNV-1a: tells regimes apart in the streams of their choices.
std::uint32_t hash_of(std::string_view text) {
  std::uint32_t hash = 2166136261u;
  for (const unsigned char c : text) hash = (hash ^ c) * 16777619u;
  return hash;
}

/// More than one chunk of 64, none a whole number of them: every run of seeds begins with one of these.
constexpr std::array<Shape, 8> long_shapes{{{1, 65, 2, 2, 32, 16},
                                            {1, 130, 1, 1, 64, 32},
                                            {2, 81, 1, 2, 16, 24},
                                            {1, 100, 1, 1, 64, 64},
                                            {1, 97, 2, 4, 24, 16},
                                            {1, 129, 1, 2, 40, 24},
                                            {1, 145, 2, 2, 16, 32},
                                            {1, 70, 1, 1, 128, 16}}};

/// At most one chunk; its third seed has one of these: a tail, an exact fit, a token less.
constexpr std::array<Shape, 6> short_shapes{{{2, 33, 1, 2, 16, 24},
                                             {1, 16, 2, 4, 24, 40},
                                             {3, 7, 1, 3, 8, 8},
                                             {1, 63, 2, 2, 48, 8},
                                             {1, 64, 1, 1, 128, 32},
                                             {1, 17, 2, 2, 32, 64}}};

std::int64_t longest(Tier tier) { return tier == Tier::quick ? 160 : tier == Tier::full ? 2048 : 8192; }

float customary_scale(std::int64_t K) { return static_cast<float>(1.0 / std::sqrt(static_cast<double>(K))); }

std::int64_t work_per_token(const Shape& s) { return s.B * s.HV * s.K * s.V; }

Shape drawn_shape(Dice& dice, std::uint64_t seed, Tier tier) {
  if (round_of(seed) == 0) return dice.any_of(long_shapes);
  if (round_of(seed) == 2) return dice.any_of(short_shapes);
  constexpr std::array<std::int64_t, 14> widths{8, 12, 16, 16, 24, 32, 32, 40, 48, 60, 64, 64, 100, 128};
  Shape s;
  s.K = dice.any_of(widths);
  s.V = dice.any_of(widths);
  s.H = dice.between(1, tier == Tier::quick ? 2 : 4);
  s.HV = s.H * dice.any_of(std::array<std::int64_t, 5>{1, 1, 1, 2, 4});
  s.B = dice.chance(0.25) ? dice.between(2, 3) : 1;
  s.T = dice.log_between(1, longest(tier));
  while (s.T * work_per_token(s) > most_work(tier)) {
    if (s.B > 1)
      s.B = 1;
    else if (s.HV > s.H)
      s.HV = s.H;
    else if (s.H > 1)
      s.HV = s.H = 1;
    else if (s.V > 16)
      s.V /= 2;
    else
      s.T = most_work(tier) / work_per_token(s);
  }
  return s;
}

} // namespace

Dice::Dice(std::string_view regime, std::uint64_t seed) : stream_(seed, Draw::recipe, hash_of(regime)), round_(round_of(seed)) {}

std::int64_t Dice::between(std::int64_t least, std::int64_t most) {
  return least + static_cast<std::int64_t>(draw() * static_cast<double>(most - least + 1));
}

std::int64_t Dice::log_between(std::int64_t least, std::int64_t most) {
  const double low = portable::log(static_cast<double>(least)), high = portable::log(static_cast<double>(most) + 1);
  return std::clamp(static_cast<std::int64_t>(portable::exp(low + (high - low) * draw())), least, most);
}

float Dice::uniform(float least, float most) { return static_cast<float>(least + (static_cast<double>(most) - least) * draw()); }

float Dice::log_uniform(float least, float most) {
  const double low = portable::log(least), high = portable::log(most);
  return static_cast<float>(portable::exp(low + (high - low) * draw()));
}

std::int64_t most_work(Tier tier) {
  // Quick: under a millisecond of fp64 recurrence; the others a hundred and a thousand times that.
  return tier == Tier::quick ? 300'000 : tier == Tier::full ? 30'000'000 : 300'000'000;
}

Recipe usual(std::string_view regime, std::uint64_t seed, Tier tier) {
  Dice dice(std::string(regime) + " in general", seed);
  Recipe recipe;
  recipe.regime = regime;
  recipe.seed = seed;
  recipe.shape = drawn_shape(dice, seed, tier);
  recipe.options.scale = customary_scale(recipe.shape.K);
  recipe.gates = GatePattern::jitter;
  recipe.decay = 0.05f;
  recipe.decay_spread = 1;
  recipe.state = std::array{StatePattern::gaussian, StatePattern::absent, StatePattern::asymmetric}[seed % 3];
  recipe.loss = LossPattern::everywhere;
  return recipe;
}

void set_length(Recipe& recipe, std::int64_t T, Tier tier) {
  Shape& s = recipe.shape;
  recipe.lengths.clear();
  s.B = 1;
  s.T = T;
  while (T * work_per_token(s) > most_work(tier) && (s.H > 1 || s.HV > 1 || s.V > 8)) {
    if (s.HV > s.H)
      s.HV = s.H;
    else if (s.H > 1)
      s.HV = s.H = 1;
    else
      s.V = std::max<std::int64_t>(8, s.V / 2);
  }
}

void lengthen(Recipe& recipe, Dice& dice, Tier tier) {
  set_length(recipe, tier == Tier::quick ? dice.between(96, 160) : dice.log_between(512, 2 * longest(tier)), tier);
}

void set_widths(Recipe& recipe, std::int64_t K, std::int64_t V) {
  recipe.shape.K = K;
  recipe.shape.V = V;
  recipe.options.scale = customary_scale(K);
}

void pack(Recipe& recipe, std::vector<std::int64_t> lengths) {
  recipe.shape.B = 1;
  recipe.shape.T = 0;
  for (std::int64_t length : lengths) recipe.shape.T += length;
  recipe.lengths = std::move(lengths);
}

std::span<const Regime> regimes() {
  static const std::vector<Regime> all = [] {
    std::vector<Regime> list;
    append_key_regimes(list);
    append_gate_regimes(list);
    append_gate_input_regimes(list);
    append_write_regimes(list);
    append_memory_regimes(list);
    append_exact_regimes(list);
    append_shape_regimes(list);
    append_size_regimes(list);
    append_pair_regimes(list);
    append_loss_regimes(list);
    append_dplr_regimes(list);
    append_everything_regime(list);
    return list;
  }();
  return all;
}

const Regime* regime_named(std::string_view wanted) {
  const auto all = regimes();
  const auto found = std::find_if(all.begin(), all.end(), [&](const Regime& regime) { return regime.name == wanted; });
  return found == all.end() ? nullptr : &*found;
}

} // namespace kdacheck
