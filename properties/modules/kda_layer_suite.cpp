// KimiDeltaAttention under test.

#include "../../kernels/faults/layer_faults.hpp"
#include "../../kernels/modules/kda_layer_module.hpp"
#include "drawn_tensors.hpp"
#include "in_arithmetic.hpp"
#include "kda_layer_oracle.hpp"
#include "suites.hpp"

#include <algorithm>
#include <stdexcept>

namespace kdacheck {
namespace {

using namespace modules;

constexpr std::int64_t oracle_chunk = 16;

/// A layer, the lengths of its sequences, and how its numbers are drawn.
struct LayerRecipe {
  KdaLayer layer{.D = 12, .H = 2, .HV = 2, .K = 5, .V = 6, .gate_rank = 3, .output_gate_rank = 4};
  std::vector<std::int64_t> lengths{9, 14};
  bool states = true;
  float A_log = 0, value_size = 1, key_size = 1;
  std::string_view kernel = "cpu.chunk16.fp32";
  bool normalised_outside = false; ///< the kernel is given q and k divided by their norms
};

LayerRecipe recipe_of(std::string_view regime) {
  LayerRecipe r;
  if (regime == "usual") r.states = false;
  if (regime == "packed") r.lengths = {3, 0, 1, 17, 2};
  if (regime == "batch") r.lengths = {7, 7, 7};
  if (regime == "grouped-values") r.layer.HV = 4;
  if (regime == "bounded-gate") r.layer.gate = GateForm::bounded;
  if (regime == "sigmoid-gate") r.layer.gate = GateForm::sigmoid;
  if (regime == "strong-decay") r.A_log = 2.5f;
  if (regime == "negative-eigenvalues") r.layer.negative_eigenvalues = true, r.A_log = -3;
  if (regime == "biased-convolution") r.layer.conv_bias = true, r.layer.conv_width = 3;
  if (regime == "no-history") r.layer.conv_width = 1;
  if (regime == "long-convolution") r.layer.conv_width = 16;
  if (regime == "outputs-near-epsilon") r.value_size = 1e-3f, r.states = false;
  if (regime == "keys-near-epsilon" || regime == "normalised-outside") r.key_size = 3e-3f;
  if (regime == "normalised-outside") r.normalised_outside = true;
  if (regime == "recurrent-kernel") r.kernel = "cpu.recurrence.fp32";
  if (regime == "v-first-kernel") r.kernel = "cpu.chunk64.v_first.fp32";
  if (regime == "other-constants")
    r.layer.gate = GateForm::bounded, r.layer.lower_bound = -2.5f, r.layer.norm_epsilon = 3e-4f, r.value_size = 1e-2f;
  if (regime == "wide-heads") r.layer.K = 20, r.layer.V = 18, r.layer.H = r.layer.HV = 1, r.lengths = {37};
  if (regime == "wide-layer") r.layer.D = 260, r.layer.H = r.layer.HV = 1, r.lengths = {5};
  return r;
}

Kernel kernel_of(const LayerRecipe& recipe) {
  const auto found = std::ranges::find(built_in_kernels(), recipe.kernel, &Kernel::name);
  if (found == built_in_kernels().end()) throw std::out_of_range("there is no kernel " + std::string(recipe.kernel));
  Kernel kernel = *found;
  if (recipe.normalised_outside) kernel.contract.l2norm_inside = false;
  return kernel;
}

ModuleCase draw(std::string_view regime, std::uint64_t seed) {
  const LayerRecipe recipe = recipe_of(regime);
  const KdaLayer layer = recipe.layer;
  KdaLayerParameters p = initial_parameters(layer, seed);
  for (float& A : p.A_log) A = 0.3f * A - 1 + recipe.A_log;
  for (auto* bias : {&p.dt_bias, &p.g_bias, &p.q_conv_bias, &p.k_conv_bias, &p.v_conv_bias, &p.o_norm})
    for (std::size_t i = 0; i < bias->size(); ++i)
      (*bias)[i] += uniform_numbers(1, 0.5, seed + i, 900 + static_cast<std::uint32_t>(bias->size()))[0];
  for (float& w : p.v_proj) w *= recipe.value_size;
  for (auto* projection : {&p.q_proj, &p.k_proj})
    for (float& w : *projection) w *= recipe.key_size;

  ModuleCase c{.module = kda_layer_module(layer, kernel_of(recipe)), .oracle = {}, .call = {}, .cotangents = {}};
  c.call.cu_seqlens = offsets_of(recipe.lengths);
  const std::int64_t R = c.call.rows(), N = c.call.sequences();
  c.call.inputs = drawn_like({zeros("x", {R, layer.D})}, 1.7f, seed, 500);
  c.call.parameters = named_parameters(layer, p);
  const NamedTensors states = named_state(layer, N, {});
  if (recipe.states) c.call.states = drawn_like(states, 0.8f, seed, 600);
  for (NamedTensor& state : c.call.states)
    if (state.name == "q_conv" || state.name == "k_conv")
      for (float& u : state.values) u *= recipe.key_size;
  c.cotangents = {drawn_like({zeros("y", {R, layer.D})}, 1.0f, seed, 700), drawn_like(states, 0.5f, seed, 800)};
  c.oracle = {.orders = 2, .evaluate = [layer](const ModuleCall& call, const ModuleCotangents* d, const ModuleArithmetic& arithmetic) {
                return in_arithmetic(arithmetic,
                                     [&]<class N>() { return layer_oracle<N>(layer, call, d, arithmetic.order == 0 ? 0 : oracle_chunk); });
              }};
  c.planted = [recipe](std::string_view fault) { return faulty_layer(fault, recipe.layer, kernel_of(recipe)); };
  return c;
}

} // namespace

ModuleSuite kda_layer_suite() {
  ModuleSuite suite{
      .name = "KimiDeltaAttention",
      .summary = "the layer: projections, short convolutions, gates, KDA by a kernel of the suite, gated RMSNorm, output projection",
      .source = "arXiv 2510.26692, section 4; flash-linear-attention, KimiDeltaAttention",
      .regimes = {{"usual", "a fresh batch"},
                  {"from-a-state", "convolution and memory go on from an earlier call"},
                  {"packed", "sequences of 3, 0, 1, 17 and 2 tokens: shorter than the convolution, and empty"},
                  {"batch", "three sequences of 7 tokens, not packed"},
                  {"grouped-values", "two value heads per query head"},
                  {"bounded-gate", "the gate with a lower bound"},
                  {"sigmoid-gate", "the plain gate, without A_log and dt_bias"},
                  {"strong-decay", "A_log 2.5 higher: most is forgotten within a few tokens"},
                  {"negative-eigenvalues", "beta to 2 and slow decay: reflections"},
                  {"biased-convolution", "convolutions of 3 tokens with bias"},
                  {"no-history", "convolutions of 1 token: no state of their own"},
                  {"long-convolution", "convolutions of 16 tokens, the most there can be"},
                  {"outputs-near-epsilon", "heads' outputs of 1e-3: where epsilon stands matters"},
                  {"keys-near-epsilon", "|q| and |k| of 1e-3 before l2norm: its epsilon matters"},
                  {"normalised-outside", "the same for a kernel that leaves l2norm to the layer"},
                  {"recurrent-kernel", "KDA token by token"},
                  {"v-first-kernel", "a kernel that stores its state V-first"},
                  {"other-constants", "a lower bound of -2.5 and an epsilon of 3e-4, which are no defaults, where they matter"},
                  {"wide-heads", "K = 20, V = 18, 37 tokens: several chunks, no multiples of 16"},
                  {"wide-layer", "D = 260: more columns than a block of the projections"}},
      .laws = token_laws(),
      .faults = {},
      .draw = draw};
  for (const LayerFaultInfo& fault : layer_faults())
    suite.faults.push_back({std::string(fault.name), std::string(fault.origin), std::string(fault.what)});
  return suite;
}

} // namespace kdacheck
