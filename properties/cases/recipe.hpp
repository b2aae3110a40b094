#pragma once
// A case is a recipe, not a tensor: shape, one regime per ingredient, and a seed. Tensors follow from the recipe alone,
// bit for bit the same on every machine.

#include "../../kernels/contract.hpp"
#include "../../reference/problem.hpp"

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kdacheck {

/// Directions of the rows of k (and, with draws of their own, of q).
enum class KeyPattern : std::uint8_t {
  gaussian,       ///< independent
  uniform,        ///< entries in [0, 1): pairwise cosine 3/4
  near_identical, ///< one direction per head, plus key_noise of a gaussian
  alternating,    ///< the same with the sign changing from token to token
  constant,       ///< one vector per head, the same bits in every token
  signed_unit,    ///< +-e_i, i among the first 16 channels; one i where key_noise is 0
  walsh,          ///< +- rows of a Walsh matrix over 4^m channels (orthonormal, dyadic), 8 of them; one where key_noise is 0
  sparse_zero,    ///< gaussian, and exactly zero for a share key_noise of the tokens
  many_lengths,   ///< gaussian; lengths log-uniform from key_noise |k| up to |k|, evenly over the tokens, the very first key the shortest
};

/// Log decay ln alpha = -d of token, head and channel. `raw` patterns are drawn as gate inputs of `gate_model`.
enum class GatePattern : std::uint8_t {
  constant,       ///< d = decay
  jitter,         ///< d = decay (1 + decay_spread u), u uniform in [-1, 1) per element
  per_head,       ///< every second head: d = decay (1 - decay_spread), the others d = decay
  per_channel,    ///< the same by channel
  mixed,          ///< per channel log-uniform over decay 10^-(4 decay_spread) .. decay, half as much again per token
  sparse_reset,   ///< d = decay in a share decay_spread of the tokens, else 0
  published_init, ///< raw: A = decay U(1,16), x = decay_spread N(0,1), dt_bias = inverse softplus of log-uniform [1e-3, 0.1]
  trained,        ///< raw: A = decay * log-uniform [1, 200], x = decay_spread N(0,1), dt_bias = N(0,1)
  softplus_gauss, ///< d = decay softplus(decay_spread N(0,1))
  logits,         ///< raw: A = 1, x + dt_bias uniform in decay_center -+ decay: the whole range of a sigmoid
};

enum class BetaPattern : std::uint8_t {
  constant,      ///< beta_center
  uniform,       ///< beta_center + beta_spread u, u uniform in [-1, 1)
  sigmoid_gauss, ///< 2 beta_center sigmoid(beta_spread N(0,1))
  near_one,      ///< beta_center (1 - beta_spread u), u uniform in [0, 1)
  halves,        ///< 0, 1/2 or 1, times 2 beta_center; at most three halves between two overwrites of the same exact key
  zero_one,      ///< 0 or 1, times 2 beta_center
  one_two,       ///< 1 or 2, times 2 beta_center; exactly 1 at least every eighth token
};
enum class ValuePattern : std::uint8_t {
  gaussian, ///< N(0, value_scale^2)
  zero,
  constant,       ///< one vector per head, the same bits in every token
  converged,      ///< S^T D k + residual N(0,1), S the state before the token; the first four of an empty memory fill it
  small_integers, ///< -2 .. 2, times value_scale
  held,           ///< 4096 value_scale
};
enum class StatePattern : std::uint8_t {
  absent, ///< no tensor
  zero,
  gaussian,   ///< N(0, state_scale^2)
  asymmetric, ///< grows by row and falls by column: no transposition goes unseen
  integers,   ///< small; with Walsh keys, integers are what the keys read from it
  warm,       ///< what 64 tokens of the same traffic leave behind, times state_scale
  held,       ///< what the repeated Walsh key reads from it is 4096 + 2 (j mod 32 + 1) in column j, times state_scale
};
enum class LossPattern : std::uint8_t { none, everywhere, outputs_only, final_state_only, single_token, single_head };

/// a, b and k of the general rule.
enum class DplrPattern : std::uint8_t {
  of_kda, ///< a = beta k, b = k alpha, key beta k: the same recurrence as KDA
  rwkv7,  ///< a = c, b = c eta for a unit vector c and eta = sigmoid(N(0,1)) per channel
  benign, ///< independent directions with |a| |b| = dplr_strength
};

/// Everything that determines a problem but the stored formats, which come from the kernel's contract.
struct Recipe {
  std::string regime; ///< the named regime it was drawn from (or that a shrink ended in)
  Shape shape;
  std::vector<std::int64_t> lengths; ///< packed sequence lengths (their sum is T, B = 1); empty: B sequences of T
  Options options;

  KeyPattern keys = KeyPattern::gaussian;
  float key_noise = 0; ///< distance from the pattern's base direction: 0 identical ... 1 independent
  float key_norm = 1;  ///< |k| before rounding; q likewise with query_norm. With l2norm inside: its rms over tokens
  float query_norm = 1;
  GatePattern gates = GatePattern::constant;
  float decay = 0;                          ///< |ln alpha| at the pattern's centre, per token
  float decay_spread = 0;                   ///< relative spread
  float decay_center = 0;                   ///< of GatePattern::logits
  GateForm gate_model = GateForm::softplus; ///< what turns the gate inputs of a raw pattern into decay
  float gate_gain = 16;                     ///< exp(A_log) of patterns that are not raw: uniform in [1, gate_gain] per head
  bool gate_bias = true;                    ///< dt_bias is given
  bool dead_heads = false;                  ///< A_log = -inf in every second head, from the first: of softplus and bounded gates
  bool shared_decay = false;                ///< all channels of a head decay (and are biased) as its first one
  BetaPattern betas = BetaPattern::uniform;
  float beta_center = 0.5f, beta_spread = 0.5f;
  ValuePattern values = ValuePattern::gaussian;
  float value_scale = 1;
  float residual = 0; ///< of ValuePattern::converged
  StatePattern state = StatePattern::absent;
  float state_scale = 1;
  LossPattern loss = LossPattern::none;
  DplrPattern dplr = DplrPattern::of_kda;
  float dplr_strength = 0.5f;
  std::uint64_t seed = 0;

  bool operator==(const Recipe&) const = default;
};

/// N of the problem: B, or the number of packed members.
std::int64_t sequence_count(const Recipe&);

/// One sentence saying what no problem can be made from (sizes, head ratio, lengths, a figure that is not finite), or
/// nothing.
std::optional<std::string> malformed(const Recipe&);

/// Tensors of a recipe in the given stored formats. Same bits on every machine and for any number of threads.
Problem make_problem(const Recipe&, const InputFormats&);

/// One printable word without spaces that holds the whole recipe, and back. Fields at their default are left out;
/// numbers are exact; the last field is a checksum. `from_token` accepts only what `to_token` writes, and throws
/// std::invalid_argument with one sentence otherwise.
std::string to_token(const Recipe&);
Recipe from_token(std::string_view);

/// Size class of the cases that a tier draws.
enum class Tier : std::uint8_t { quick, full, nightly };

/// A named family of recipes.
struct Regime {
  std::string name;                         ///< "near-identical-keys"
  std::string why;                          ///< one line: what it exposes
  Recipe (*draw)(std::uint64_t seed, Tier); ///< deterministic
  /// How many first rounds a campaign of any tier draws at least, each with something of its own that no seed leaves out; at most 64.
  int rounds = 0;
};
std::span<const Regime> regimes();
const Regime* regime_named(std::string_view);

/// The nearest recipe inside a contract's declared shapes and forms (K, V, T, gate form, beta form, l2norm, grouped,
/// packed, rule, state, scale, decay shared by the channels of a head). Values that the regime is about (decay, beta, |k|) are never
/// changed to fit: such a case stays outside the domain and is reported as not supported. Regimes with rounds of their own are about sizes
/// and forms: kernels that take no beta above 1 get theirs halved.
Recipe fitted(Recipe, const Contract&);

/// Strictly simpler recipes, boldest first: shorter, fewer heads and channels, options dropped, plainer patterns.
/// Applied again and again to any recipe it ends after finitely many steps.
std::vector<Recipe> simpler(const Recipe&);

} // namespace kdacheck
