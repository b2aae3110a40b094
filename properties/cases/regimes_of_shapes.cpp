// Lengths, packing, heads and widths.

#include "regime_drawing.hpp"

#include <algorithm>

namespace kdacheck {
namespace {

/// Every second of a run's first seeds has a length where tails begin and end; the other seeds walk through 0 .. 2C+1.
template <std::int64_t C> std::int64_t length_by(std::uint64_t seed) {
  constexpr std::array<std::int64_t, 8> sharp{C + 1, 1, 2 * C, C - 1, 0, 2 * C + 1, C, 2 * C - 1};
  const std::uint64_t round = round_of(seed), run = seed / seeds_per_run;
  if (round % 2 == 0 && round / 2 < sharp.size()) return sharp[static_cast<std::size_t>(round / 2)];
  const std::uint64_t place = round < 2 * sharp.size() ? round / 2 : round - sharp.size();
  const std::uint64_t size = 2 * C + 2;
  return static_cast<std::int64_t>((run * (seeds_per_run - sharp.size()) + place) * 37 % size); // 37 shares no factor with 34 or 130
}

/// Cuts a total into members of any length, odd offsets and empty ones included.
std::vector<std::int64_t> cut(Dice& dice, std::int64_t total, std::int64_t members) {
  std::vector<std::int64_t> ends{0, total};
  for (std::int64_t i = 1; i < members; ++i) ends.push_back(dice.between(0, total));
  std::sort(ends.begin(), ends.end());
  std::vector<std::int64_t> lengths;
  for (std::size_t i = 1; i < ends.size(); ++i) lengths.push_back(ends[i] - ends[i - 1]);
  return lengths;
}

} // namespace

void append_shape_regimes(std::vector<Regime>& list) {
  list.push_back({"every-length-64", "every T from 0 to 129: tails, exact fits and the empty call of a chunk of 64",
                  [](std::uint64_t seed, Tier tier) {
                    Recipe recipe = usual("every-length-64", seed, tier);
                    set_length(recipe, length_by<64>(seed), tier);
                    if (seed % 2 == 1) recipe.decay = 2;
                    return recipe;
                  }});
  list.push_back({"every-length-16", "every T from 0 to 33: the same for chunks and sub-blocks of 16", [](std::uint64_t seed, Tier tier) {
                    Recipe recipe = usual("every-length-16", seed, tier);
                    set_length(recipe, length_by<16>(seed), tier);
                    if (seed % 2 == 0) recipe.decay = 2;
                    return recipe;
                  }});
  list.push_back({"long-sequences", "lengths up to the tier's limit: drift, and offsets that grow", [](std::uint64_t seed, Tier tier) {
                    Recipe recipe = usual("long-sequences", seed, tier);
                    Dice dice(recipe.regime, seed);
                    set_widths(recipe, 16, 16);
                    lengthen(recipe, dice, tier);
                    if (tier == Tier::quick) set_length(recipe, dice.between(200, 600), tier);
                    recipe.decay = dice.log_uniform(1e-3f, 0.1f);
                    return recipe;
                  }});
  list.push_back({"tail-with-strong-decay",
                  "a partial last chunk together with strong decay: what lies past the tail must not be exponentiated",
                  [](std::uint64_t seed, Tier tier) {
                    Recipe recipe = usual("tail-with-strong-decay", seed, tier);
                    Dice dice(recipe.regime, seed);
                    set_length(recipe, round_of(seed) == 0 ? 75 : dice.between(1, 160), tier);
                    recipe.decay = dice.log_uniform(3.0f, 100.0f);
                    return recipe;
                  }});
  list.push_back({"packed", "packed sequences of any length at odd offsets, each with its own state", [](std::uint64_t seed, Tier tier) {
                    Recipe recipe = usual("packed", seed, tier);
                    Dice dice(recipe.regime, seed);
                    const std::int64_t total = std::max<std::int64_t>(recipe.shape.T * recipe.shape.B, 20);
                    set_length(recipe, total, tier);
                    if (round_of(seed) == 0) { // equal neighbours: what is kept from one member must not serve the next
                      const std::int64_t length = dice.between(17, 40);
                      pack(recipe, {3, length, length, 2, 2, 1, 1, length});
                    } else if (round_of(seed) % 2 == 0) {
                      pack(recipe, cut(dice, total, dice.between(2, 7)));
                    } else { // gradients of A_log and dt_bias gather from every member: two have tokens whatever the cuts
                      std::vector<std::int64_t> lengths = cut(dice, total - 8, dice.between(2, 7));
                      lengths.insert(lengths.begin(), 4), lengths.push_back(4);
                      pack(recipe, std::move(lengths));
                      recipe.options.gate = recipe.gate_model = GateForm::softplus;
                      recipe.gates = GatePattern::published_init;
                      recipe.decay = recipe.decay_spread = 1;
                    }
                    return recipe;
                  }});
  list.push_back({"packed-with-empty", "empty members first, last, in between, or all of them", [](std::uint64_t seed, Tier tier) {
                    Recipe recipe = usual("packed-with-empty", seed, tier);
                    Dice dice(recipe.regime, seed);
                    const std::int64_t some = round_of(seed) == 0 ? dice.between(65, 80) : dice.between(1, 70);
                    set_length(recipe, some + 17, tier); // cuts heads and V where that is much
                    switch (round_of(seed) % 5) {
                    case 0: // at first the long one has more than a chunk, and the empty ones have the only thing they can: a state
                      pack(recipe, {0, some, 0, 0, 17, 0});
                      recipe.state = StatePattern::gaussian;
                      break;
                    case 1: pack(recipe, {0, 0, 0}); break;
                    case 2: pack(recipe, {some, 0}); break;
                    case 3: pack(recipe, {0, some}); break;
                    default: pack(recipe, {0}); break;
                    }
                    return recipe;
                  }});
  list.push_back(
      {"packed-single-tokens", "many members of one token, as in decoding, among a longer one or alone", [](std::uint64_t seed, Tier tier) {
         Recipe recipe = usual("packed-single-tokens", seed, tier);
         Dice dice(recipe.regime, seed);
         set_widths(recipe, 16, seed % 2 == 0 ? 16 : 24);
         std::vector<std::int64_t> lengths(static_cast<std::size_t>(tier == Tier::quick ? dice.between(41, 70) : dice.between(41, 2000)),
                                           1);
         if (seed % 2 == 0) lengths[static_cast<std::size_t>(dice.between(0, std::ssize(lengths) - 1))] = dice.between(17, 100);
         recipe.shape.HV = recipe.shape.H;
         pack(recipe, std::move(lengths));
         return recipe;
       }});
  list.push_back({"grouped-heads", "two, three or four value heads to a key head: which head's gate, beta and key does each read",
                  [](std::uint64_t seed, Tier tier) {
                    Recipe recipe = usual("grouped-heads", seed, tier);
                    Dice dice(recipe.regime, seed);
                    recipe.shape.H = dice.between(1, 3);
                    recipe.shape.HV = recipe.shape.H * std::array<std::int64_t, 3>{2, 4, 3}[static_cast<std::size_t>(seed % 3)];
                    if (round_of(seed) == 0) recipe.shape.H = dice.between(2, 3), recipe.shape.HV = 3 * recipe.shape.H;
                    recipe.shape.T = std::min<std::int64_t>(recipe.shape.T, tier == Tier::quick ? 40 : 300);
                    if (tier == Tier::quick)
                      set_widths(recipe, std::min<std::int64_t>(recipe.shape.K, 32), std::min<std::int64_t>(recipe.shape.V, 32));
                    recipe.gates = seed % 2 == 0 ? GatePattern::per_head : GatePattern::jitter;
                    recipe.decay = seed % 2 == 0 ? 3.0f : 0.2f;
                    return recipe;
                  }});
  list.push_back({"many-heads-and-batches",
                  "more than eight heads in batches of five and more: indices past what a table, a mask or a warp holds",
                  [](std::uint64_t seed, Tier tier) {
                    Recipe recipe = usual("many-heads-and-batches", seed, tier);
                    Dice dice(recipe.regime, seed);
                    const bool heads = round_of(seed) % 2 == 0; // then many of both; else many batches
                    const std::int64_t H = heads ? dice.between(9, 12) : dice.between(1, 3);
                    recipe.shape = {.B = heads ? dice.between(5, 9) : dice.between(9, 40), .T = dice.between(2, 9), .H = H, .HV = H};
                    set_widths(recipe, 8, heads ? 8 : 12);
                    recipe.gates = seed % 4 < 2 ? GatePattern::jitter : GatePattern::per_head;
                    recipe.decay = dice.uniform(0.2f, 2.0f);
                    if (heads) { // each with its A_log and dt_bias
                      recipe.options.gate = recipe.gate_model = GateForm::softplus;
                      recipe.gates = GatePattern::published_init;
                      recipe.decay = recipe.decay_spread = 1;
                    }
                    return recipe;
                  }});
  list.push_back({"full-width", "K = V = 128 over more than a chunk, as models have it, and up to 256: tiles that are exactly full",
                  [](std::uint64_t seed, Tier tier) {
                    Recipe recipe = usual("full-width", seed, tier);
                    Dice dice(recipe.regime, seed);
                    const auto width = [&] { return dice.any_of(std::array<std::int64_t, 3>{128, 192, 256}); };
                    recipe.lengths.clear();
                    recipe.shape = {.B = 1, .T = 0, .H = 1, .HV = 1, .K = 128, .V = 128};
                    if (round_of(seed) > 0) recipe.shape.K = width(), recipe.shape.V = width();
                    if (round_of(seed) == 1) recipe.shape.K = dice.any_of(std::array<std::int64_t, 2>{192, 256});
                    set_widths(recipe, recipe.shape.K, recipe.shape.V);
                    const std::int64_t most = most_work(tier) / (recipe.shape.K * recipe.shape.V);
                    recipe.shape.T = round_of(seed) == 0 ? dice.between(65, 67) : dice.between(1, std::max<std::int64_t>(1, most / 2));
                    return recipe;
                  }});
  list.push_back(
      {"odd-widths", "K != V, neither a power of two nor a multiple of 8: masks of the last tile", [](std::uint64_t seed, Tier tier) {
         Recipe recipe = usual("odd-widths", seed, tier);
         Dice dice(recipe.regime, seed);
         const auto width = [&] { return dice.any_of(std::array<std::int64_t, 12>{3, 5, 7, 11, 17, 20, 33, 36, 50, 60, 63, 100}); };
         set_widths(recipe, width(), width());
         if (round_of(seed) == 0) set_widths(recipe, width(), dice.any_of(std::array<std::int64_t, 3>{17, 33, 65})); // one past a tile
         if (recipe.shape.K == recipe.shape.V) set_widths(recipe, recipe.shape.K + 2, recipe.shape.V);
         if (tier == Tier::quick) set_length(recipe, std::min<std::int64_t>(recipe.shape.T, 40), tier);
         return recipe;
       }});
  list.push_back({"narrow", "K or V is 1, 2 or 4: the smallest tensors there are", [](std::uint64_t seed, Tier tier) {
                    Recipe recipe = usual("narrow", seed, tier);
                    Dice dice(recipe.regime, seed);
                    const std::int64_t small = std::array<std::int64_t, 3>{1, 2, 4}[static_cast<std::size_t>(seed / 3 % 3)];
                    const std::int64_t K = seed % 3 == 1 ? dice.between(1, 64) : small, V = seed % 3 == 0 ? dice.between(1, 64) : small;
                    set_widths(recipe, K, V);
                    recipe.decay = 0.3f;
                    return recipe;
                  }});
}

} // namespace kdacheck
