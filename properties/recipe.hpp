#pragma once
// A case is a recipe, not a tensor: shape, one regime per ingredient, and a seed. Tensors follow from the recipe alone,
// bit for bit the same on every machine.

#include "../kernels/contract.hpp"
#include "../reference/problem.hpp"

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kdacheck {

enum class KeyPattern : std::uint8_t { gaussian, uniform, near_identical, alternating, constant, signed_unit, walsh, sparse_zero };
enum class GatePattern : std::uint8_t {
  constant,
  jitter,
  per_head,
  per_channel,
  mixed,
  sparse_reset,
  published_init,
  trained,
  softplus_gauss
};
enum class BetaPattern : std::uint8_t { constant, uniform, sigmoid_gauss, near_one, halves };
enum class ValuePattern : std::uint8_t { gaussian, zero, constant, converged, small_integers };
enum class StatePattern : std::uint8_t { absent, zero, gaussian, asymmetric, integers, warm };
enum class LossPattern : std::uint8_t { none, everywhere, outputs_only, final_state_only, single_token, single_head };

/// Everything that determines a problem but the stored formats, which come from the kernel's contract.
struct Recipe {
  std::string regime; ///< the named regime it was drawn from (or that a shrink ended in)
  Shape shape;
  std::vector<std::int64_t> lengths; ///< packed sequence lengths (their sum is T, B = 1); empty: B sequences of T
  Options options;

  KeyPattern keys = KeyPattern::gaussian;
  float key_noise = 0; ///< distance from the pattern's base direction: 0 identical ... 1 independent
  float key_norm = 1;  ///< |k| before rounding; q likewise with query_norm
  float query_norm = 1;
  GatePattern gates = GatePattern::constant;
  float decay = 0;        ///< |ln alpha| at the pattern's centre, per token
  float decay_spread = 0; ///< relative spread
  BetaPattern betas = BetaPattern::uniform;
  float beta_center = 0.5f, beta_spread = 0.5f;
  ValuePattern values = ValuePattern::gaussian;
  float value_scale = 1;
  float residual = 0; ///< of ValuePattern::converged: v = S^T k + residual * noise
  StatePattern state = StatePattern::absent;
  float state_scale = 1;
  LossPattern loss = LossPattern::none;
  std::uint64_t seed = 0;

  bool operator==(const Recipe&) const = default;
};

/// Tensors of a recipe in the given stored formats. Same bits on every machine and for any number of threads.
Problem make_problem(const Recipe&, const InputFormats&);

/// One printable word without spaces that holds the whole recipe, and back. `from_token` throws std::invalid_argument
/// with one sentence.
std::string to_token(const Recipe&);
Recipe from_token(std::string_view);

/// Size class of the cases that a tier draws.
enum class Tier : std::uint8_t { quick, full, nightly };

/// A named family of recipes.
struct Regime {
  std::string name;                         ///< "near-identical-keys"
  std::string why;                          ///< one line: what it exposes
  Recipe (*draw)(std::uint64_t seed, Tier); ///< deterministic
};
std::span<const Regime> regimes();
const Regime* regime_named(std::string_view);

/// The nearest recipe inside a contract's declared shapes and forms (K, V, T, gate form, beta form, l2norm, grouped,
/// packed, rule, state). Values that the regime is about (decay, beta, |k|) are never changed to fit: such a case stays
/// outside the domain and is reported as not supported.
Recipe fitted(Recipe, const Contract&);

/// Strictly simpler recipes, boldest first: shorter, fewer heads and channels, options dropped, plainer patterns.
/// Applied again and again to any recipe it ends after finitely many steps.
std::vector<Recipe> simpler(const Recipe&);

} // namespace kdacheck
