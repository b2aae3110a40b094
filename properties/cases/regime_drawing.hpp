#pragma once
// What the regimes draw from: choices that follow from (regime, seed) alone, and a sensible recipe to start from.

#include "random.hpp"
#include "recipe.hpp"

#include <array>
#include <string_view>
#include <vector>

namespace kdacheck {

/// A sequence of choices. Two regimes with the same seed choose differently.
class Dice {
public:
  Dice(std::string_view regime, std::uint64_t seed);
  std::int64_t between(std::int64_t least, std::int64_t most);     ///< both ends included
  std::int64_t log_between(std::int64_t least, std::int64_t most); ///< small sizes as often as large ones; least >= 1
  float uniform(float least, float most);
  float log_uniform(float least, float most);
  bool chance(double probability) { return draw() < probability; }
  /// The fixed values in turn at even rounds, the most telling first; anything between at odd ones.
  template <std::size_t n> float fixed_or(const std::array<float, n>& fixed, float least, float most) {
    return round_ % 2 == 0 && round_ / 2 < n ? fixed[round_ / 2] : log_uniform(least, most);
  }
  template <class Value, std::size_t n> Value any_of(const std::array<Value, n>& all) {
    return all[static_cast<std::size_t>(between(0, n - 1))];
  }

private:
  double draw() { return stream_.uniform(next_++); }
  Stream stream_;
  std::uint64_t round_;
  std::uint32_t next_ = 0;
};

/// A campaign draws seeds in runs that begin at a multiple of this. The place in the run decides between kinds of cases,
/// so that a short campaign meets the most telling ones.
inline constexpr std::uint64_t seeds_per_run = 64;
inline std::uint64_t round_of(std::uint64_t seed) { return seed % seeds_per_run; }

/// Tokens x heads x K x V that a case of a tier may have.
std::int64_t most_work(Tier);

/// Shape by seed (each run of seeds begins with telling ones), gaussian keys, mild jittered decay, beta uniform in (0,1),
/// gaussian values, a state in two cases of three, a loss everywhere, the customary scale.
Recipe usual(std::string_view regime, std::uint64_t seed, Tier);

/// Makes the sequences longer, within the tier's work: what needs many tokens to show.
void lengthen(Recipe&, Dice&, Tier);

/// Sets T (and B = 1) and keeps the work within the tier's.
void set_length(Recipe&, std::int64_t T, Tier);

/// Sets K and V, and the customary scale.
void set_widths(Recipe&, std::int64_t K, std::int64_t V);

/// Packs the recipe into these lengths.
void pack(Recipe&, std::vector<std::int64_t> lengths);

/// Each file of regimes adds its own.
void append_key_regimes(std::vector<Regime>&);
void append_gate_regimes(std::vector<Regime>&);
void append_gate_input_regimes(std::vector<Regime>&);
void append_write_regimes(std::vector<Regime>&);
void append_memory_regimes(std::vector<Regime>&);
void append_exact_regimes(std::vector<Regime>&);
void append_shape_regimes(std::vector<Regime>&);
void append_size_regimes(std::vector<Regime>&);
void append_pair_regimes(std::vector<Regime>&);
void append_loss_regimes(std::vector<Regime>&);
void append_dplr_regimes(std::vector<Regime>&);
void append_everything_regime(std::vector<Regime>&);

} // namespace kdacheck
