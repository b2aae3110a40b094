// HybridAttention under test.

#include "../../kernels/faults/hybrid_faults.hpp"
#include "drawn_tensors.hpp"
#include "hybrid_oracle.hpp"
#include "in_arithmetic.hpp"
#include "suites.hpp"
#include "token_rows.hpp"

#include <algorithm>
#include <fmt/core.h>
#include <limits>

namespace kdacheck {
namespace {

using namespace modules;

constexpr std::int64_t capacity = 48, oracle_chunk = 16;

HybridStack stack_of(std::vector<Mixer> pattern) {
  return {.pattern = std::move(pattern),
          .kda = {.D = 10, .H = 2, .HV = 2, .K = 4, .V = 3, .conv_width = 3, .gate_rank = 3, .output_gate_rank = 3},
          .mla = {.D = 10, .H = 2, .K = 4, .V = 3, .K_shared = 2, .rank = 5}};
}

/// A stack, tokens of its sequences, tokens behind them that are known already (empty: a fresh batch).
struct StackRecipe {
  HybridStack stack = stack_of(hybrid_pattern(4));
  std::vector<std::int64_t> lengths{6, 9}, cached{4, 2};
};

StackRecipe recipe_of(std::string_view regime) {
  StackRecipe r;
  if (regime == "three-to-one") r.cached = {};
  if (regime == "packed") r.lengths = {2, 0, 1, 7}, r.cached = {0, 3, 1, 2};
  if (regime == "batch") r.lengths = {4, 4, 4}, r.cached = {3, 0, 1};
  if (regime == "one-to-one") r.stack = stack_of(hybrid_pattern(4, 1));
  if (regime == "seven-to-one") r.stack = stack_of(hybrid_pattern(8, 7)), r.lengths = {5}, r.cached = {3};
  if (regime == "mla-first") r.stack = stack_of({Mixer::mla, Mixer::kda, Mixer::kda});
  if (regime == "unlike-mixers") { // no size of one layer is also another's, no epsilon a default
    r.stack.kda = {.D = 10, .H = 2, .HV = 4, .K = 4, .V = 3, .conv_width = 3, .gate_rank = 5, .output_gate_rank = 6};
    r.stack.mla = {.D = 10, .H = 3, .K = 5, .V = 2, .K_shared = 1, .rank = 7};
    r.stack.kda.norm_epsilon = 2e-3f, r.stack.mla.norm_epsilon = 5e-3f, r.stack.norm_epsilon = 3e-3f;
  }
  return r;
}

const Kernel& kernel_under_the_stack() { return *std::ranges::find(built_in_kernels(), std::string("cpu.chunk16.fp32"), &Kernel::name); }

ModuleCase draw(std::string_view regime, std::uint64_t seed) {
  const StackRecipe recipe = recipe_of(regime);
  const HybridStack stack = recipe.stack;
  HybridParameters p = initial_parameters(stack, seed);
  for (std::size_t l = 0; l < p.size(); ++l) {
    for (std::size_t i = 0; i < p[l].norm.size(); ++i)
      p[l].norm[i] += uniform_numbers(1, 0.5, seed + i, 900 + static_cast<std::uint32_t>(l))[0];
    for (float& A : p[l].kda.A_log) A = 0.3f * A - 1;
  }
  ModuleCase c{.module = hybrid_module(stack, kernel_under_the_stack(), capacity), .oracle = {}, .call = {}, .cotangents = {}};
  c.regime = regime;
  c.call.cu_seqlens = offsets_of(recipe.lengths);
  const std::int64_t R = c.call.rows(), N = c.call.sequences();
  c.call.inputs = drawn_like({zeros("x", {R, stack.D()})}, 1.7f, seed, 500);
  c.call.parameters = named_parameters(stack, p);
  HybridState empty;
  empty.layers.resize(stack.pattern.size());
  for (HybridBlockState& layer : empty.layers) layer.mla.rows.resize(static_cast<std::size_t>(N));
  const NamedTensors like = named_state(stack, N, capacity, empty);
  if (!recipe.cached.empty()) {
    c.call.states = drawn_like(like, 0.8f, seed, 600);
    for (NamedTensor& state : c.call.states)
      for (std::int64_t n = 0; n < N; ++n) {
        const std::int64_t tokens = recipe.cached[static_cast<std::size_t>(n)];
        if (state.name.ends_with(".length")) state.values[static_cast<std::size_t>(n)] = static_cast<float>(tokens);
        if (!state.name.ends_with(".latent")) continue;
        const std::int64_t each = capacity * stack.mla.cached();
        std::fill(state.values.begin() + n * each + tokens * stack.mla.cached(), state.values.begin() + (n + 1) * each, 0.0f);
      }
  }
  c.cotangents = {drawn_like({zeros("y", {R, stack.D()})}, 1.0f, seed, 700), drawn_like(like, 0.5f, seed, 800)};
  c.oracle = {.orders = 2, .evaluate = [stack](const ModuleCall& call, const ModuleCotangents* d, const ModuleArithmetic& arithmetic) {
                return in_arithmetic(arithmetic, [&]<class N>() {
                  return hybrid_oracle<N>(stack, capacity, call, d, arithmetic.order == 0 ? 0 : oracle_chunk);
                });
              }};
  c.planted = [stack](std::string_view fault) { return faulty_hybrid(fault, stack, kernel_under_the_stack(), capacity); };
  return c;
}

Finding broken(std::string tensor, std::string detail) {
  return {.verdict = Verdict::failed_property,
          .bound_util = std::numeric_limits<double>::infinity(),
          .place = Place{.tensor = std::move(tensor)},
          .detail = std::move(detail),
          .metrics = {}};
}

/// Numbers up to the last that is not zero, of sequence n.
std::int64_t used(const NamedTensor& tensor, std::int64_t n) {
  const std::int64_t each = element_count(std::span(tensor.shape).subspan(1));
  std::int64_t last = 0;
  for (std::int64_t i = 0; i < each; ++i)
    if (!(tensor.values[static_cast<std::size_t>(n * each + i)] == 0.0f)) last = i + 1;
  return last;
}

/// Each layer keeps what its kind keeps: MLA layers latents of all tokens, KDA layers a state whose size no token changes.
Finding memory_grows_in_mla_layers_alone(const ModuleCase& c, std::uint64_t) {
  const ModuleResult result = c.module.forward(c.call);
  for (std::int64_t n = 0; n < c.call.sequences(); ++n) {
    const std::int64_t T = c.call.cu_seqlens[static_cast<std::size_t>(n + 1)] - c.call.cu_seqlens[static_cast<std::size_t>(n)];
    for (std::size_t l = 0; !layer_tensors(c.call.parameters, l).empty(); ++l) {
      const NamedTensors own = layer_tensors(result.states, l), p = layer_tensors(c.call.parameters, l);
      const auto latent_norm = std::ranges::find(p, std::string("kv_norm"), &NamedTensor::name);
      const auto latent = std::ranges::find(own, std::string("latent"), &NamedTensor::name);
      if ((latent_norm == p.end()) != (latent == own.end()))
        return broken(layer_prefix(l), fmt::format("layer {} keeps what the other kind of layer keeps", l));
      if (latent == own.end()) continue;
      const std::int64_t width = latent_norm->shape[0] + tensor_named(p, "k_shared").shape[1];
      const std::int64_t tokens = cached_tokens(layer_tensors(c.call.states, l), n) + T, held = cached_tokens(own, n);
      const std::int64_t numbers = used(*latent, n);
      if (held != tokens || numbers > tokens * width || numbers <= (tokens - 1) * width)
        return broken(latent->name, fmt::format("layer {}, sequence {}: {} numbers and a length of {} for {} tokens of {} numbers each", l,
                                                n, numbers, held, tokens, width));
    }
  }
  return {};
}

/// Layers r, 2 r + 1, 3 r + 2, ... are MLA, all others KDA.
Finding the_pattern_repeats(const ModuleCase&, std::uint64_t) {
  for (std::int64_t ratio = 0; ratio <= 8; ++ratio)
    for (std::int64_t layers = 0; layers <= 20; ++layers) {
      std::vector<Mixer> due(static_cast<std::size_t>(layers), Mixer::kda);
      for (std::int64_t l = ratio; l < layers; l += ratio + 1) due[static_cast<std::size_t>(l)] = Mixer::mla;
      if (hybrid_pattern(layers, ratio) != due)
        return broken("pattern",
                      fmt::format("{} layers at {} to one have their MLA layers elsewhere than behind every {}", layers, ratio, ratio));
    }
  return {};
}

/// The state behind `tokens` tokens of one sequence, from nothing.
HybridState state_behind(const HybridStack& stack, std::int64_t tokens, std::uint64_t seed) {
  HybridState state;
  const std::vector<float> x = drawn_tensor("x", {tokens, stack.D()}, -1.7, 1.7, seed, 500).values;
  hybrid(stack, initial_parameters(stack, seed), kernel_under_the_stack(), {.B = 1, .T = tokens, .x = x}, state);
  return state;
}

/// Bytes of a fresh sequence's state: latents of each token in MLA layers, a convolution's history and a memory in the others.
std::int64_t counted_bytes(const HybridStack& stack, std::int64_t tokens) {
  const KdaLayer& kda = stack.kda;
  std::int64_t numbers = 0;
  for (const Mixer mixer : stack.pattern)
    numbers += mixer == Mixer::mla ? tokens * (stack.mla.rank + stack.mla.K_shared)
                                   : (kda.conv_width - 1) * (2 * kda.H * kda.K + kda.HV * kda.V) + kda.HV * kda.K * kda.V;
  return numbers * static_cast<std::int64_t>(sizeof(float));
}

Finding memory_is_counted_to_the_byte(const ModuleCase& c, std::uint64_t seed) {
  const HybridStack stack = recipe_of(c.regime).stack;
  for (const std::int64_t tokens : {std::int64_t{1}, 2 + static_cast<std::int64_t>(seed % 40)}) {
    const std::int64_t said = state_behind(stack, tokens, seed).bytes(), counted = counted_bytes(stack, tokens);
    if (said != counted) return broken("state", fmt::format("behind {} tokens the state has {} bytes, {} are said", tokens, counted, said));
  }
  return {};
}

/// A state's bytes behind a long prompt, measured, and against attention in every layer: with the same latents, measured, and with
/// keys and values of every head, counted.
std::vector<ModuleFigure> memory_figures(std::string_view regime, std::uint64_t seed) {
  constexpr std::int64_t tokens = 1024;
  const HybridStack stack = recipe_of(regime).stack;
  HybridStack latent = stack;
  std::ranges::fill(latent.pattern, Mixer::mla);
  const Mla& mla = stack.mla;
  const auto layers = static_cast<double>(stack.pattern.size());
  const auto own = static_cast<double>(state_behind(stack, tokens, seed).bytes()),
             all_latent = static_cast<double>(state_behind(latent, tokens, seed).bytes()),
             all_heads = layers * static_cast<double>(tokens * mla.H * (mla.K + mla.K_shared + mla.V)) * sizeof(float);
  return {{"layers", layers},
          {"of them MLA", static_cast<double>(std::ranges::count(stack.pattern, Mixer::mla))},
          {"tokens", static_cast<double>(tokens)},
          {"bytes", own},
          {"bytes with MLA in every layer", all_latent},
          {"saved, %", 100 * (1 - own / all_latent)},
          {"bytes of all heads' keys and values", all_heads},
          {"saved of these, %", 100 * (1 - own / all_heads)}};
}

} // namespace

ModuleSuite hybrid_suite() {
  ModuleSuite suite{.name = "HybridAttention",
                    .summary = "a stack of KDA layers with an MLA layer behind every few of them, in pre-norm residual blocks",
                    .source = "arXiv 2510.26692, section 4",
                    .regimes = {{"three-to-one", "three KDA layers and one MLA layer, a fresh batch"},
                                {"from-a-state", "all layers go on from an earlier call"},
                                {"packed", "sequences of 2, 0, 1 and 7 tokens behind 0, 3, 1 and 2"},
                                {"batch", "three sequences of 4 tokens behind 3, 0 and 1, not packed"},
                                {"one-to-one", "MLA every second layer"},
                                {"seven-to-one", "eight layers, one of them MLA"},
                                {"mla-first", "a pattern of no ratio"},
                                {"unlike-mixers", "heads, channels, ranks and epsilons that differ from layer to layer"}},
                    .laws = token_laws(),
                    .faults = {},
                    .draw = draw,
                    .figures = memory_figures};
  suite.laws.push_back(
      {"the-pattern-repeats", "an MLA layer stands behind every r KDA layers, for any ratio r and depth", false, the_pattern_repeats});
  suite.laws.push_back({"memory-is-counted-to-the-byte", "the bytes of a fresh sequence's state are those of its numbers", false,
                        memory_is_counted_to_the_byte});
  suite.laws.push_back({"memory-grows-in-mla-layers-alone", "MLA layers keep latents of all tokens, KDA layers a state of one size", false,
                        memory_grows_in_mla_layers_alone});
  for (const HybridFaultInfo& fault : hybrid_faults())
    suite.faults.push_back({std::string(fault.name), std::string(fault.origin), std::string(fault.what)});
  return suite;
}

} // namespace kdacheck
