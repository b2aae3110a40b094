// ChunkwiseKDA under test: the module, and its parts G, Akk, Aqk, W, U, inter and intra.

#include "../../kernels/faults/module_faults.hpp"
#include "../../kernels/modules/chunkwise_module.hpp"
#include "core_oracle.hpp"
#include "drawn_tensors.hpp"
#include "in_arithmetic.hpp"
#include "suites.hpp"

#include <algorithm>
#include <cmath>

namespace kdacheck {
namespace {

using namespace modules;

const std::vector<ModuleRegime> all_regimes{
    {"chunks-of-16", "three chunks and a rest"},
    {"chunks-of-32", "two chunks and a rest, grouped values"},
    {"chunks-of-64", "a chunk and a rest"},
    {"chunks-of-128", "one chunk that is not full"},
    {"strong-decay", "log decay to -30: e^{-G} would overflow"},
    {"no-decay", "alpha = 1: nothing is forgotten"},
    {"packed", "0, 1, 17 and 16 tokens"},
    {"equal-keys", "one key for all tokens: the triangular system at its worst"},
    {"wide-heads", "K = 20 and V = 36: whole registers and a rest"},
    {"normalised", "q and k of 1e-3, which the module divides by their norms: its epsilon matters"}};

ModuleCase draw_case(std::string_view regime, std::uint64_t seed, bool parts) {
  ChunkwiseSizes s{.C = 16, .H = 1, .HV = 1, .K = 5, .V = 4};
  std::vector<std::int64_t> lengths{50};
  double least = -0.5;
  if (regime == "chunks-of-32") s.C = 32, s.HV = 2, lengths = {70};
  if (regime == "chunks-of-64") s.C = 64, lengths = {70};
  if (regime == "chunks-of-128") s.C = 128, lengths = {80};
  if (regime == "strong-decay") least = -30;
  if (regime == "no-decay") least = 0;
  if (regime == "wide-heads") s.K = 20, s.V = 36, lengths = {37};
  if (regime == "packed") s.H = s.HV = 2, lengths = {0, 1, 17, 16};
  s.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(s.K)));
  s.normalise = regime == "normalised";
  const CoreForm form{s.H, s.HV, s.K, s.V, static_cast<double>(s.scale), s.normalise};

  ModuleCase c{.module = parts ? chunk_parts_module(s) : chunkwise_module(s), .oracle = {}, .call = {}, .cotangents = {}};
  c.call.cu_seqlens = offsets_of(lengths);
  const std::int64_t R = c.call.rows(), N = c.call.sequences();
  c.call.inputs = {drawn_tensor("q", {R, s.H, s.K}, -1, 1, seed, 1), drawn_tensor("k", {R, s.H, s.K}, -1, 1, seed, 2),
                   drawn_tensor("v", {R, s.HV, s.V}, -1, 1, seed, 3), drawn_tensor("log_decay", {R, s.HV, s.K}, least, 0, seed, 4),
                   drawn_tensor("beta", {R, s.HV}, 0.05, 0.95, seed, 5)};
  std::vector<float>& k = c.call.inputs[1].values;
  for (std::size_t i = 0; i < k.size() && s.normalise; ++i) k[i] *= 1e-3f, c.call.inputs[0].values[i] *= 1e-3f;
  for (std::size_t at = 0; at < k.size() && !s.normalise; at += static_cast<std::size_t>(s.K)) {
    if (regime == "equal-keys") std::copy_n(k.begin(), s.K, k.begin() + static_cast<std::int64_t>(at));
    double square = 0;
    for (std::size_t i = at; i < at + static_cast<std::size_t>(s.K); ++i) square += static_cast<double>(k[i]) * static_cast<double>(k[i]);
    for (std::size_t i = at; i < at + static_cast<std::size_t>(s.K); ++i)
      k[i] = static_cast<float>(static_cast<double>(k[i]) / std::sqrt(square));
  }
  c.call.states = {drawn_tensor("memory", {N, s.HV, s.K, s.V}, -0.7, 0.7, seed, 6)};
  c.cotangents = {{drawn_tensor("o", {R, s.HV, s.V}, -1, 1, seed, 7)}, {drawn_tensor("memory", {N, s.HV, s.K, s.V}, -1, 1, seed, 8)}};
  if (parts)
    c.oracle = {.orders = 1, .evaluate = [=](const ModuleCall& call, const ModuleCotangents*, const ModuleArithmetic& a) {
                  return in_arithmetic(a, [&]<class N_>() { return parts_oracle<N_>(form, call, s.C); });
                }};
  else
    c.oracle = {.orders = 2, .evaluate = [=](const ModuleCall& call, const ModuleCotangents* d, const ModuleArithmetic& a) {
                  return in_arithmetic(a, [&]<class N_>() { return core_oracle<N_>(form, call, d, a.order == 0 ? 0 : s.C); });
                }};
  c.planted = [right = c.module](std::string_view fault) { return faulty_module(fault, right); };
  return c;
}

std::vector<ModuleFault> faults_of(std::string_view module) {
  std::vector<ModuleFault> faults;
  for (const ModuleFaultInfo& fault : module_faults())
    if (fault.module == module) faults.push_back({std::string(fault.name), std::string(fault.origin), std::string(fault.what)});
  return faults;
}

ModuleCase draw_module(std::string_view regime, std::uint64_t seed) { return draw_case(regime, seed, false); }
ModuleCase draw_parts(std::string_view regime, std::uint64_t seed) { return draw_case(regime, seed, true); }

} // namespace

ModuleSuite chunkwise_suite() {
  return {.name = "ChunkwiseKDA",
          .summary = "KDA in chunks of 16, 32, 64 or 128 with sub-blocks of 16, forward and backward",
          .source = "arXiv 2510.26692, sections 3.1 and 3.2",
          .regimes = all_regimes,
          .laws = token_laws(),
          .faults = faults_of("ChunkwiseKDA"),
          .draw = draw_module};
}

ModuleSuite chunk_parts_suite() {
  ModuleSuite suite{.name = "ChunkwiseKDA.parts",
                    .summary = "its sums of decay, scores, auxiliary vectors W and U, and the parts of o between and inside chunks",
                    .source = "arXiv 2510.26692, sections 3.1 and 3.2",
                    .regimes = all_regimes,
                    .laws = token_laws(),
                    .faults = faults_of("ChunkwiseKDA.parts"),
                    .draw = draw_parts};
  std::erase_if(suite.regimes, [](const ModuleRegime& regime) { return regime.name == "normalised"; }); // they refuse it
  // Chunks are counted from a call's first token: what a call is cut into shows in these tensors, not in o.
  std::erase_if(suite.laws, [](const ModuleLaw& law) {
    return law.backward || law.name == "prefill-equals-decode" || law.name == "sequence-splits-anywhere";
  });
  return suite;
}

} // namespace kdacheck
