// MultiheadLatentAttention under test.

#include "../../kernels/faults/mla_faults.hpp"
#include "drawn_tensors.hpp"
#include "in_arithmetic.hpp"
#include "mla_oracle.hpp"
#include "suites.hpp"

#include <fmt/core.h>
#include <limits>

namespace kdacheck {
namespace {

using namespace modules;

constexpr std::int64_t capacity = 64;

/// A layer, tokens of its sequences, tokens that are cached before (empty: a fresh batch), and how its numbers are drawn.
struct MlaRecipe {
  Mla mla{.D = 20, .H = 2, .K = 6, .V = 5, .K_shared = 3, .rank = 7};
  std::vector<std::int64_t> lengths{9, 14}, cached{5, 3};
  float query_size = 1, latent_size = 1;
};

MlaRecipe recipe_of(std::string_view regime) {
  MlaRecipe r;
  if (regime == "usual") r.cached = {};
  if (regime == "packed") r.lengths = {3, 0, 1, 17, 2}, r.cached = {0, 4, 2, 1, 0};
  if (regime == "batch") r.lengths = {7, 7, 7}, r.cached = {0, 4, 2};
  if (regime == "no-shared-channels") r.mla.K_shared = 0;
  if (regime == "large-scores") r.query_size = 300;
  if (regime == "equal-scores") r.query_size = 0;
  if (regime == "latent-near-epsilon") r.latent_size = 1e-3f;
  if (regime == "other-epsilon") r.mla.norm_epsilon = 3e-4f, r.latent_size = 1e-2f;
  if (regime == "wide-layer") r.mla.D = 260, r.mla.H = 1, r.lengths = {5}, r.cached = {2};
  if (regime == "wide-heads") r.mla = {.D = 24, .H = 1, .K = 20, .V = 18, .K_shared = 16, .rank = 33}, r.lengths = {40}, r.cached = {3};
  return r;
}

ModuleCase draw(std::string_view regime, std::uint64_t seed) {
  const MlaRecipe recipe = recipe_of(regime);
  const Mla mla = recipe.mla;
  MlaParameters p = initial_parameters(mla, seed);
  for (std::size_t i = 0; i < p.kv_norm.size(); ++i) p.kv_norm[i] += uniform_numbers(1, 0.5, seed + i, 900)[0];
  for (float& w : p.q_proj) w *= recipe.query_size;
  for (float& w : p.kv_down) w *= recipe.latent_size;

  ModuleCase c{.module = mla_module(mla, capacity), .oracle = {}, .call = {}, .cotangents = {}};
  c.call.cu_seqlens = offsets_of(recipe.lengths);
  const std::int64_t R = c.call.rows(), N = c.call.sequences();
  c.call.inputs = drawn_like({zeros("x", {R, mla.D})}, 1.7f, seed, 500);
  c.call.parameters = named_parameters(mla, p);
  if (!recipe.cached.empty()) {
    MlaCache cache;
    for (std::size_t n = 0; n < recipe.cached.size(); ++n)
      cache.rows.push_back(uniform_numbers(recipe.cached[n] * mla.cached(), 1.2, seed, 600 + static_cast<std::uint32_t>(n)));
    c.call.states = named_cache(mla, capacity, cache);
  }
  c.cotangents = {drawn_like({zeros("y", {R, mla.D})}, 1.0f, seed, 700),
                  drawn_like({zeros("latent", {N, capacity, mla.cached()}), zeros("length", {N})}, 0.5f, seed, 800)};
  c.oracle = {.orders = 2, .evaluate = [mla](const ModuleCall& call, const ModuleCotangents* d, const ModuleArithmetic& arithmetic) {
                return in_arithmetic(arithmetic, [&]<class N>() { return mla_oracle<N>(mla, capacity, call, d, arithmetic.order == 1); });
              }};
  c.planted = [mla](std::string_view fault) { return faulty_mla(fault, mla, capacity); };
  return c;
}

/// What is kept of a token does not grow with heads or channels, and a call keeps its own tokens and no others.
Finding cache_holds_the_latent_alone(const ModuleCase& c, std::uint64_t) {
  const ModuleResult result = c.module.forward(c.call);
  const std::int64_t width = tensor_named(c.call.parameters, "kv_norm").shape[0] +
                             (c.call.parameters[4].name == "k_shared" ? c.call.parameters[4].shape[1] : 0); // whatever the heads are
  const NamedTensor& latent = tensor_named(result.states, "latent");
  for (std::int64_t n = 0; n < c.call.sequences(); ++n) {
    const std::int64_t tokens = cached_tokens(c.call.states, n) + c.call.cu_seqlens[static_cast<std::size_t>(n + 1)] -
                                c.call.cu_seqlens[static_cast<std::size_t>(n)];
    std::int64_t used = 0; // up to the last number that is not zero
    for (std::int64_t i = 0; i < capacity * latent.shape[2]; ++i)
      if (!(latent.values[static_cast<std::size_t>(n * capacity * latent.shape[2] + i)] == 0.0f)) used = i + 1;
    if (latent.shape[2] != width || cached_tokens(result.states, n) != tokens || used > tokens * width || used <= (tokens - 1) * width) {
      Finding finding{.verdict = Verdict::failed_property,
                      .bound_util = std::numeric_limits<double>::infinity(),
                      .place = Place{.tensor = "latent"},
                      .detail = fmt::format("sequence {}: {} numbers and a length of {} are kept of {} tokens of {} numbers each", n, used,
                                            cached_tokens(result.states, n), tokens, width),
                      .metrics = {}};
      finding.place->sequence = n;
      return finding;
    }
  }
  return {};
}

} // namespace

ModuleSuite mla_suite() {
  ModuleSuite suite{.name = "MultiheadLatentAttention",
                    .summary = "softmax attention through a compressed cache, without position encoding",
                    .source =
                        "arXiv 2405.04434, section 2.1; arXiv 2510.26692, section 4; flash-linear-attention, MultiheadLatentAttention",
                    .regimes = {{"usual", "a fresh batch"},
                                {"from-a-cache", "5 and 3 tokens are cached"},
                                {"packed", "sequences of 3, 0, 1, 17 and 2 tokens behind 0, 4, 2, 1 and 0"},
                                {"batch", "three sequences of 7 tokens behind 0, 4 and 2, not packed"},
                                {"no-shared-channels", "keys from the latent alone"},
                                {"large-scores", "scores beyond the range of exp: the maximum must be taken off"},
                                {"equal-scores", "all queries zero: plain means over all tokens, where a mask's place shows most"},
                                {"latent-near-epsilon", "latents of 1e-3 before their norm: epsilon matters"},
                                {"other-epsilon", "3e-4, which is no default, and latents of 1e-2"},
                                {"wide-layer", "D = 260: more columns than a block of the projections"},
                                {"wide-heads", "36 and 18 channels, rank 33, 40 tokens: no multiples of 16"}},
                    .laws = token_laws(),
                    .faults = {},
                    .draw = draw};
  suite.laws.push_back({"cache-holds-the-latent-alone", "rank + K_shared numbers are kept of each token, none of others", false,
                        cache_holds_the_latent_alone});
  for (const MlaFaultInfo& fault : mla_faults())
    suite.faults.push_back({std::string(fault.name), std::string(fault.origin), std::string(fault.what)});
  return suite;
}

} // namespace kdacheck
