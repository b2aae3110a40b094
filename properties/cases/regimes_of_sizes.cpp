// Sizes that go together: every width with every other's remainder and tail, batches and packed members of whole chunks. A kernel that
// dispatches by size has faults in one size alone.

#include "forms.hpp"

#include <algorithm>

namespace kdacheck {
namespace {

constexpr std::string_view every_width = "every-width", whole_chunks = "whole-chunks";

/// Of every-width: all multiples of 16, four rounds of other widths, two of wide keys or values over more than a chunk.
constexpr std::int64_t multiples = 16, other_widths = 4, long_ones = 2;

/// Tokens x heads x K x V: a walk has many cases, so each is a small one.
std::int64_t most_walked(Tier tier) { return most_work(tier) / 4; }

/// A gate of any form with decays that leave something of the state, beta as a value or as logits, up to 2 where `to_two`, rows normalised
/// inside or not.
void draw_forms(Recipe& recipe, Dice& dice, bool to_two = false) {
  const auto form = dice.any_of(
      std::array{GateForm::log_decay, GateForm::log_decay, GateForm::softplus, GateForm::bounded, GateForm::sigmoid, GateForm::absent});
  draw_gate(recipe, dice, form, dice.log_uniform(1e-2f, 1.0f));
  if (to_two) recipe.beta_center = recipe.beta_spread = 1;
  if (dice.chance(0.3)) {
    recipe.options.beta = to_two ? BetaForm::twice_sigmoid : BetaForm::sigmoid;
    recipe.betas = BetaPattern::sigmoid_gauss;
    recipe.beta_spread = 1;
  }
  recipe.options.l2norm = dice.chance(0.3); // of rows of length 1: a kernel that normalises none is not left out
}

/// Round r of the walk has K = 16 (r + 1). Wide keys go with narrow values; with a = r / 4 and b = r mod 4, V / 16 is b + a and the tail
/// of T is a + 2 b modulo 4, so that any two of (K mod 64, V mod 64, tail of 16) meet in one round of the 16. Values and keys above 128
/// each come with one head, with several key heads and with several value heads to one; at b = 0 with beta up to 2, at b = 3 with a scale
/// above 2.
Recipe draw_width(std::uint64_t seed, Tier tier) {
  Recipe recipe = usual(every_width, seed, tier);
  Dice dice(every_width, seed);
  const auto round = static_cast<std::int64_t>(round_of(seed)), a = round / 4, b = round % 4;
  std::int64_t K = dice.between(1, 96), V = dice.between(1, 96), tail = dice.between(0, 3);
  switch (round < multiples ? 0 : round - multiples + 1) {
  case 0: K = 16 * (round + 1), V = 16 * (4 * (3 - a) + (a + b) % 4 + 1), tail = (a + 2 * b) % 4; break;
  case 1: K = 16 * dice.between(0, 15) + 8; break;
  case 2: V = 16 * dice.between(0, 15) + 8; break;
  case 3: K = 16 * dice.between(1, 12) + 1, V = 16 * dice.between(1, 12) - 1; break;
  case 4: K = 16 * dice.between(1, 12) - 1, V = 16 * dice.between(1, 12) + 1; break;
  case 5: K = 16 * dice.between(9, 16), V = 8 * dice.between(1, 2); break;
  case 6: K = 8 * dice.between(1, 2), V = 16 * dice.between(9, 16); break;
  default: break;
  }
  set_widths(recipe, K, V);
  const bool is_long = round >= multiples + other_widths && round < multiples + other_widths + long_ones;
  recipe.shape.B = 1;
  recipe.shape.H = !is_long && round % 3 == 2 ? 2 : 1;
  recipe.shape.HV = is_long || round % 3 == 0 ? 1 : 2;
  recipe.lengths.clear();
  const std::int64_t most = most_walked(tier) / (K * V * recipe.shape.HV);
  const std::int64_t blocks = dice.between(1, std::clamp<std::int64_t>(most / 16, 1, 12));
  const std::int64_t rest = tail == 3 ? -1 : tail == 2 ? dice.between(2, 14) - 16 : tail;
  recipe.shape.T = is_long ? dice.between(66, 130) : 16 * blocks + rest;
  if (round < multiples && b == 3) recipe.options.scale = dice.log_uniform(2.5f, 32.0f);
  draw_forms(recipe, dice, round < multiples && b == 0);
  return recipe;
}

struct Batch {
  std::int64_t B, T, H, HV;  ///< B 0: any from 2 to 5. H 0: 3, 5, 6 or 7 with as many value heads
  std::int64_t K = 0, V = 0; ///< 0: any
};

/// Whole chunks of 64 in every batch of 2 to 5, of 128, 32 and 16, then one token less and more than each; wide values and keys where the
/// rows are few.
constexpr std::array<Batch, 15> batches{{{2, 64, 1, 2},
                                         {3, 64, 1, 2},
                                         {4, 64, 1, 1},
                                         {5, 64, 1, 1},
                                         {0, 128, 1, 1},
                                         {0, 16, 1, 1, 16, 160},
                                         {0, 32, 3, 3},
                                         {0, 15, 0, 0},
                                         {0, 17, 1, 1, 144, 16},
                                         {0, 31, 1, 2},
                                         {0, 33, 1, 3},
                                         {0, 63, 1, 1},
                                         {2, 65, 2, 2},
                                         {2, 127, 1, 1},
                                         {2, 129, 1, 1}}};
constexpr std::uint64_t packs = 6;

/// Narrower until the work fits; the wider of the two first.
void narrow_down(Recipe& recipe, Tier tier) {
  Shape& s = recipe.shape;
  while (s.B * s.T * s.HV * s.K * s.V > most_walked(tier) && std::max(s.K, s.V) > 8) {
    std::int64_t& wider = s.K > s.V ? s.K : s.V;
    wider = std::max<std::int64_t>(8, wider > 32 ? wider - 16 : wider - 8);
  }
  set_widths(recipe, s.K, s.V);
}

std::vector<std::int64_t> members_of(std::uint64_t pack, Dice& dice) {
  const std::int64_t C = dice.any_of(std::array<std::int64_t, 2>{16, 32});
  switch (pack) {
  case 0: return {64, 64};
  case 1: return {C, 16, 32, 2 * C};
  case 2: return {64 - 1, 64, 64 + 1};
  case 3: return {dice.between(65, 127)}; // alone in its pack
  case 4: return {dice.between(2, 30), dice.between(513, 700), 16};
  default: return {128, C};
  }
}

Recipe draw_batch(std::uint64_t seed, Tier tier) {
  Recipe recipe = usual(whole_chunks, seed, tier);
  Dice dice(whole_chunks, seed);
  const std::uint64_t round = round_of(seed);
  constexpr std::array<std::int64_t, 11> widths{8, 16, 24, 32, 48, 64, 80, 96, 112, 128, 160};
  Batch batch{0, 0, dice.between(1, 6), 0};
  batch.T = dice.any_of(std::array<std::int64_t, 8>{16, 32, 48, 64, 96, 128, 192, 256}) + std::max<std::int64_t>(-1, dice.between(-3, 1));
  batch.HV = batch.H * dice.any_of(std::array<std::int64_t, 4>{1, 1, 2, 3});
  if (round < batches.size()) batch = batches[static_cast<std::size_t>(round)];
  if (batch.H == 0) batch.H = batch.HV = dice.any_of(std::array<std::int64_t, 4>{3, 5, 6, 7});
  recipe.shape.B = batch.B > 0 ? batch.B : dice.between(2, 5);
  recipe.shape.T = batch.T;
  recipe.shape.H = batch.H;
  recipe.shape.HV = batch.HV;
  recipe.shape.K = dice.any_of(widths);
  recipe.shape.V = dice.any_of(widths);
  if (round >= batches.size() && round < batches.size() + packs) {
    recipe.shape.H = 1;
    recipe.shape.HV = dice.between(1, 2);
    pack(recipe, members_of(round - batches.size(), dice));
    if (recipe.shape.T > 512) recipe.shape.HV = 1;
  }
  if (batch.K > 0)
    set_widths(recipe, batch.K, batch.V);
  else
    narrow_down(recipe, tier);
  draw_forms(recipe, dice);
  return recipe;
}

} // namespace

void append_size_regimes(std::vector<Regime>& list) {
  list.push_back({std::string(every_width), "every multiple of 16 up to 256 as K and as V, with every tail: kernels that dispatch by width",
                  draw_width, static_cast<int>(multiples + other_widths + long_ones)});
  list.push_back(
      {std::string(whole_chunks),
       "batches of two to five and packed members with exactly full chunks, a token less, a token more; three, five and six heads",
       draw_batch, static_cast<int>(batches.size() + packs)});
}

} // namespace kdacheck
