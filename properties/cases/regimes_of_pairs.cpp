// Every two things together: a covering array over sizes, forms and magnitudes, one row a round. A fault that needs two of them at once is
// met whichever two they are, and most that need three.

#include "covering_rows.hpp"
#include "forms.hpp"

#include <algorithm>

namespace kdacheck {
namespace {

constexpr std::string_view every_pair = "every-pair";

struct Range {
  std::int64_t least, most;
};

constexpr std::array<Range, 5> widths{{{1, 8}, {9, 16}, {17, 64}, {65, 128}, {129, 256}}};
/// Widths modulo 8; the second is as good as the first.
constexpr std::array<std::array<std::int64_t, 2>, 6> remainders{{{0, 0}, {4, 4}, {2, 6}, {1, 1}, {3, 5}, {7, 7}}};
constexpr std::array<Range, 7> lengths{{{1, 1}, {2, 15}, {16, 63}, {64, 64}, {65, 127}, {128, 128}, {129, 200}}};
/// Batches; none: packed, with one member or with several.
constexpr std::array<Range, 5> batches{{{1, 1}, {2, 3}, {4, 6}, {0, 0}, {0, 0}}};
constexpr int packed_alone = 3, packed_beside = 4;
struct Heads {
  std::int64_t H, group;
};
constexpr std::array<Heads, 4> heads{{{1, 1}, {3, 1}, {1, 2}, {2, 3}}};
constexpr std::array gate_forms{GateForm::log_decay, GateForm::softplus, GateForm::bounded, GateForm::sigmoid, GateForm::absent};
enum class Strength : std::uint8_t { value, to_two, sigmoid, twice_sigmoid };
struct Interval {
  float least, most;
};
/// Times the customary K^-1/2.
constexpr std::array<Interval, 3> scales{{{1, 1}, {8, 64}, {1.0f / 64, 1.0f / 8}}};
constexpr std::array<Interval, 3> decays{{{1e-4f, 1e-2f}, {1e-2f, 1.0f}, {1.0f, 6.0f}}};
constexpr std::array keys{KeyPattern::gaussian, KeyPattern::near_identical, KeyPattern::uniform};
constexpr std::array value_scales{1.0f, 1e-3f, 300.0f};
constexpr std::array losses{LossPattern::everywhere, LossPattern::outputs_only, LossPattern::final_state_only, LossPattern::single_token};

enum Factor : std::size_t {
  K_range,
  K_remainder,
  V_range,
  V_remainder,
  length,
  batch,
  head_count,
  with_state,
  gate_form,
  strength,
  normalised,
  scale,
  decay,
  key_pattern,
  value_scale,
  loss,
  factors
};
constexpr std::array<int, factors> levels{5, 6, 5, 6, 7, 5, 4, 2, 5, 4, 2, 3, 3, 3, 3, 4};

/// What a case costs: values cost as much as keys where they are few.
std::int64_t cost(std::int64_t B, std::int64_t T, std::int64_t HV, std::int64_t K, std::int64_t V) { return B * T * HV * K * (V + 24); }
constexpr std::int64_t usual_cost = 80'000, highest_cost = 129 * 129 * (1 + 24);

/// Of the least sizes of a row.
std::int64_t least_cost(const CoveringRow& row) {
  const auto level = [&](Factor factor) { return static_cast<std::size_t>(row[factor]); };
  const Heads& head = heads[level(head_count)];
  return cost(std::max<std::int64_t>(1, batches[level(batch)].least), lengths[level(length)].least, head.H * head.group,
              widths[level(K_range)].least, widths[level(V_range)].least);
}

const std::vector<CoveringRow>& rows() {
  static const std::vector<CoveringRow> all = covering_rows(levels, least_cost, std::array{usual_cost, 2 * usual_cost, highest_cost});
  return all;
}

/// A width of that range and remainder, the least of them where `narrow`.
std::int64_t width(Dice& dice, const Range& range, const std::array<std::int64_t, 2>& remainder, bool narrow) {
  std::vector<std::int64_t> all;
  for (std::int64_t w = range.least; w <= range.most; ++w)
    if (w % 8 == remainder[0] || w % 8 == remainder[1]) all.push_back(w);
  return all[narrow ? 0 : static_cast<std::size_t>(dice.between(0, std::ssize(all) - 1))];
}

std::vector<std::int64_t> members(Dice& dice, std::int64_t longest) {
  std::vector<std::int64_t> all{longest};
  for (std::int64_t more = dice.between(1, 4); more > 0; --more) all.push_back(dice.between(0, std::min<std::int64_t>(longest, 40)));
  std::swap(all.front(), all[static_cast<std::size_t>(dice.between(0, std::ssize(all) - 1))]);
  return all;
}

/// Sizes of the row, as chance names them where that costs no more than usual (and a hundred times that beyond the quick tier).
void draw_sizes(Recipe& recipe, Dice& dice, const CoveringRow& row, Tier tier) {
  const auto level = [&](Factor factor) { return static_cast<std::size_t>(row[factor]); };
  const Heads& head = heads[level(head_count)];
  recipe.shape.H = head.H;
  recipe.shape.HV = head.H * head.group;
  const Range& T = lengths[level(length)];
  for (int narrower = 0; narrower < 4; ++narrower) { // one more of V, K and T at its least in every further try
    recipe.lengths.clear();
    const Range& B = batches[level(batch)];
    recipe.shape.B = B.least == 0 ? 1 : narrower > 0 ? B.least : dice.between(B.least, B.most);
    set_widths(recipe, width(dice, widths[level(K_range)], remainders[level(K_remainder)], narrower > 1),
               width(dice, widths[level(V_range)], remainders[level(V_remainder)], narrower > 0));
    recipe.shape.T = narrower > 2 ? T.least : dice.between(T.least, T.most);
    if (row[batch] == packed_alone) pack(recipe, {recipe.shape.T});
    if (row[batch] == packed_beside) pack(recipe, members(dice, recipe.shape.T));
    const Shape& s = recipe.shape;
    if (cost(s.B, s.T, s.HV, s.K, s.V) <= (tier == Tier::quick ? 1 : 100) * usual_cost) break;
  }
}

Recipe draw_pairs(std::uint64_t seed, Tier tier) {
  Recipe recipe = usual(every_pair, seed, tier);
  Dice dice(every_pair, seed);
  const CoveringRow& row = rows()[static_cast<std::size_t>(round_of(seed)) % rows().size()];
  const auto level = [&](Factor factor) { return static_cast<std::size_t>(row[factor]); };
  draw_sizes(recipe, dice, row, tier);
  const auto within = [&](const Interval& interval) { return dice.log_uniform(interval.least, interval.most); };
  recipe.options.scale *= within(scales[level(scale)]);
  recipe.state = row[with_state] == 0 ? StatePattern::absent : dice.chance(0.5) ? StatePattern::gaussian : StatePattern::asymmetric;

  draw_gate(recipe, dice, gate_forms[level(gate_form)], within(decays[level(decay)]));
  recipe.options.l2norm = row[normalised] == 1;
  switch (static_cast<Strength>(row[strength])) {
  case Strength::value: break;
  case Strength::to_two: recipe.beta_center = recipe.beta_spread = 1; break;
  case Strength::sigmoid:
  case Strength::twice_sigmoid:
    recipe.options.beta = static_cast<Strength>(row[strength]) == Strength::sigmoid ? BetaForm::sigmoid : BetaForm::twice_sigmoid;
    recipe.betas = BetaPattern::sigmoid_gauss;
    recipe.beta_center = recipe.options.beta == BetaForm::sigmoid ? 0.5f : 1.0f;
    recipe.beta_spread = 1;
    break;
  }
  recipe.keys = keys[level(key_pattern)];
  if (recipe.keys == KeyPattern::near_identical) recipe.key_noise = dice.log_uniform(0.03f, 0.5f);
  recipe.value_scale = recipe.state_scale = value_scales[level(value_scale)];
  recipe.loss = losses[level(loss)];
  return recipe;
}

} // namespace

void append_pair_regimes(std::vector<Regime>& list) {
  list.push_back(
      {std::string(every_pair),
       "every two of widths, remainders, lengths, batches, heads, states, gates, strengths, scales, keys and losses: faults that "
       "need both",
       draw_pairs, static_cast<int>(rows().size())});
}

} // namespace kdacheck
