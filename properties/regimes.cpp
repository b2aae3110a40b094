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

/// Shapes of the first seeds: a tail of one token, grouped heads, more than two chunks, less than one, odd widths, one
/// token less than a chunk, exactly one chunk.
constexpr std::array<Shape, 8> first_shapes{{{1, 65, 2, 2, 32, 16},
                                             {2, 33, 1, 2, 16, 24},
                                             {1, 130, 1, 1, 64, 32},
                                             {1, 16, 2, 4, 24, 40},
                                             {1, 100, 1, 1, 64, 64},
                                             {3, 7, 1, 3, 8, 8},
                                             {1, 63, 2, 2, 48, 8},
                                             {1, 64, 1, 1, 128, 32}}};

std::int64_t longest(Tier tier) { return tier == Tier::quick ? 160 : tier == Tier::full ? 2048 : 8192; }

float customary_scale(std::int64_t K) { return static_cast<float>(1.0 / std::sqrt(static_cast<double>(K))); }

std::int64_t work_per_token(const Shape& s) { return s.B * s.HV * s.K * s.V; }

Shape drawn_shape(Dice& dice, std::uint64_t seed, Tier tier) {
  if (seed < first_shapes.size()) return first_shapes[static_cast<std::size_t>(seed)];
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

Dice::Dice(std::string_view regime, std::uint64_t seed) : stream_(seed, Draw::recipe, hash_of(regime)) {}

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
  // Quick: under a millisecond of fp64 recurrence; each tier about two hundred times the one before.
  return tier == Tier::quick ? 300'000 : tier == Tier::full ? 60'000'000 : 2'000'000'000;
}

Recipe usual(std::string_view regime, std::uint64_t seed, Tier tier) {
  Dice dice("usual", seed);
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
