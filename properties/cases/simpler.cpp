// Strictly simpler recipes. Each field has a complexity, a natural number; a simpler recipe has no field of higher and
// at least one of lower complexity, so no chain of simplifications is endless.

#include "recipe_fields.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

namespace kdacheck {
namespace {

/// Plainest first.
constexpr std::array key_order{KeyPattern::signed_unit, KeyPattern::gaussian,     KeyPattern::walsh,
                               KeyPattern::constant,    KeyPattern::uniform,      KeyPattern::sparse_zero,
                               KeyPattern::alternating, KeyPattern::many_lengths, KeyPattern::near_identical};
constexpr std::array gate_order{
    GatePattern::constant, GatePattern::per_channel,    GatePattern::per_head, GatePattern::sparse_reset,   GatePattern::jitter,
    GatePattern::mixed,    GatePattern::softplus_gauss, GatePattern::logits,   GatePattern::published_init, GatePattern::trained};
constexpr std::array beta_order{BetaPattern::constant, BetaPattern::zero_one, BetaPattern::halves,       BetaPattern::one_two,
                                BetaPattern::uniform,  BetaPattern::near_one, BetaPattern::sigmoid_gauss};
constexpr std::array value_order{ValuePattern::zero,     ValuePattern::constant,  ValuePattern::small_integers,
                                 ValuePattern::gaussian, ValuePattern::converged, ValuePattern::held};
constexpr std::array state_order{StatePattern::absent,     StatePattern::zero, StatePattern::integers, StatePattern::gaussian,
                                 StatePattern::asymmetric, StatePattern::warm, StatePattern::held};
constexpr std::array loss_order{LossPattern::none,       LossPattern::outputs_only, LossPattern::final_state_only,
                                LossPattern::everywhere, LossPattern::single_token, LossPattern::single_head};
constexpr std::array dplr_order{DplrPattern::of_kda, DplrPattern::benign, DplrPattern::rwkv7};
constexpr std::array rule_order{Rule::kda, Rule::dplr};
constexpr std::array gate_form_order{GateForm::log_decay, GateForm::absent, GateForm::sigmoid, GateForm::softplus, GateForm::bounded};
constexpr std::array beta_form_order{BetaForm::value, BetaForm::sigmoid, BetaForm::twice_sigmoid};

constexpr const auto& order_of(KeyPattern) { return key_order; }
constexpr const auto& order_of(GatePattern) { return gate_order; }
constexpr const auto& order_of(BetaPattern) { return beta_order; }
constexpr const auto& order_of(ValuePattern) { return value_order; }
constexpr const auto& order_of(StatePattern) { return state_order; }
constexpr const auto& order_of(LossPattern) { return loss_order; }
constexpr const auto& order_of(DplrPattern) { return dplr_order; }
constexpr const auto& order_of(Rule) { return rule_order; }
constexpr const auto& order_of(GateForm) { return gate_form_order; }
constexpr const auto& order_of(BetaForm) { return beta_form_order; }

template <class Enum> requires std::is_enum_v<Enum>
std::int64_t complexity(Enum value, Enum) {
  const auto& order = order_of(value);
  return std::find(order.begin(), order.end(), value) - order.begin();
}
std::int64_t complexity(std::int64_t size, std::int64_t) { return size; }
std::int64_t complexity(bool given, bool) { return given ? 1 : 0; }
std::int64_t complexity(std::uint64_t seed, std::uint64_t) { return std::bit_width(seed); }
std::int64_t complexity(const std::vector<std::int64_t>& lengths, const std::vector<std::int64_t>&) { return std::ssize(lengths); }
std::int64_t complexity(float x, float plain) {
  if (x == plain) return 0;
  int exponent = 0;
  return std::fabs(std::frexp(x, &exponent)) == 0.5f ? 1 : 2;
}

std::vector<std::int64_t> complexities(const Recipe& recipe) {
  static const Recipe plain;
  std::vector<std::int64_t> all;
  each_field([&](std::string_view, const auto& value, const auto& usual) { all.push_back(complexity(value, usual)); }, recipe, plain);
  return all;
}

float power_of_two(float x) {
  int exponent = 0;
  const float fraction = std::frexp(x, &exponent);
  return std::copysign(std::ldexp(1.0f, exponent - (std::fabs(fraction) < 0.70710678f ? 1 : 0)), x);
}

/// Collects the candidates that are well formed and truly simpler.
struct Candidates {
  const Recipe& from;
  std::vector<std::int64_t> before;
  std::vector<Recipe> found{};

  template <class Change> void add(Change change) {
    Recipe candidate = from;
    change(candidate);
    const auto after = complexities(candidate);
    for (std::size_t i = 0; i < after.size(); ++i)
      if (after[i] > before[i]) return;
    if (after == before || malformed(candidate)) return;
    if (std::find(found.begin(), found.end(), candidate) == found.end()) found.push_back(std::move(candidate));
  }
};

void set_lengths(Recipe& recipe, std::vector<std::int64_t> lengths) {
  recipe.shape.T = 0;
  for (std::int64_t length : lengths) recipe.shape.T += length;
  recipe.lengths = std::move(lengths);
}

void simpler_lengths(Candidates& candidates) {
  const Recipe& from = candidates.from;
  if (from.lengths.empty()) {
    const std::int64_t T = from.shape.T;
    for (std::int64_t shorter : {T / 8, T / 2, T - T / 4, T - T / 16, T - 1}) candidates.add([&](Recipe& r) { r.shape.T = shorter; });
    return;
  }
  const auto& lengths = from.lengths;
  const auto count = std::ssize(lengths);
  candidates.add([&](Recipe& r) { // one sequence, not packed
    r.lengths.clear();
    r.shape.T = *std::max_element(lengths.begin(), lengths.end());
  });
  const auto keep = [&](std::int64_t first, std::int64_t last, std::int64_t without) {
    candidates.add([&](Recipe& r) {
      std::vector<std::int64_t> kept;
      for (std::int64_t i = first; i < last; ++i)
        if (i != without) kept.push_back(lengths[static_cast<std::size_t>(i)]);
      if (!kept.empty()) set_lengths(r, kept);
    });
  };
  keep(0, count / 2, -1);
  keep(count / 2, count, -1);
  constexpr std::int64_t most_tried = 12;
  for (std::int64_t i = 0; i < std::min(count, most_tried); ++i) keep(0, count, i);
  for (std::size_t i = 0; i < std::min<std::size_t>(lengths.size(), most_tried); ++i)
    for (std::int64_t shorter : {lengths[i] / 8, lengths[i] / 2, lengths[i] - 1})
      candidates.add([&](Recipe& r) {
        auto cut = lengths;
        cut[i] = shorter;
        set_lengths(r, cut);
      });
}

void simpler_shape(Candidates& candidates) {
  const Shape& s = candidates.from.shape;
  candidates.add([](Recipe& r) { r.shape.B = 1; });
  candidates.add([](Recipe& r) { r.shape.B -= 1; });
  candidates.add([](Recipe& r) { r.shape.H = r.shape.HV = 1; });
  candidates.add([](Recipe& r) { r.shape.HV = r.shape.H; });
  candidates.add([](Recipe& r) { r.shape.HV -= r.shape.H; });
  candidates.add([&](Recipe& r) {
    r.shape.H -= 1;
    r.shape.HV -= s.HV / s.H;
  });
  for (std::int64_t Shape::*width : {&Shape::V, &Shape::K})
    for (std::int64_t narrower : {(s.*width) / 8, (s.*width) / 2, s.*width - s.*width / 4, s.*width - 1})
      candidates.add([&](Recipe& r) { r.shape.*width = narrower; });
}

} // namespace

std::vector<Recipe> simpler(const Recipe& recipe) {
  Candidates candidates{.from = recipe, .before = complexities(recipe)};
  simpler_lengths(candidates);
  simpler_shape(candidates);
  const Recipe plain;
  // Forms and patterns, the plainest first.
  each_field(
      [&](std::string_view name, const auto& value, const auto&) {
        using Value = std::remove_cvref_t<decltype(value)>;
        if constexpr (std::is_enum_v<Value>) {
          const auto set = [&, name](Recipe& r, Value plainer) {
            each_field(
                [&](std::string_view field, auto& target) {
                  if constexpr (std::is_same_v<std::remove_cvref_t<decltype(target)>, Value>)
                    if (field == name) target = plainer;
                },
                r);
          };
          const auto& order = order_of(value);
          const auto rank = std::find(order.begin(), order.end(), value) - order.begin();
          for (std::ptrdiff_t lower = 0; lower < rank; ++lower)
            candidates.add([&](Recipe& r) { set(r, order[static_cast<std::size_t>(lower)]); });
        }
      },
      recipe, plain);
  candidates.add([](Recipe& r) { r.options.l2norm = false; });
  candidates.add([](Recipe& r) { r.gate_bias = false; });
  candidates.add([](Recipe& r) { r.dead_heads = false; });
  candidates.add([](Recipe& r) { r.shared_decay = false; });
  each_field(
      [&](std::string_view name, const auto& value, const auto& usual) {
        if constexpr (std::is_same_v<std::remove_cvref_t<decltype(value)>, float>)
          for (float plainer : {usual, power_of_two(value)})
            candidates.add([&](Recipe& r) {
              each_field(
                  [&](std::string_view field, auto& target) {
                    if constexpr (std::is_same_v<std::remove_cvref_t<decltype(target)>, float>)
                      if (field == name) target = plainer;
                  },
                  r);
            });
      },
      recipe, plain);
  const std::uint64_t seed = recipe.seed;
  for (std::uint64_t smaller : {std::uint64_t{0}, std::uint64_t{1}, seed & 0xff, seed >> 8, seed >> 1})
    candidates.add([&](Recipe& r) { r.seed = smaller; });
  return std::move(candidates.found);
}

} // namespace kdacheck
