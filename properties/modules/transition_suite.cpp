// DPLRTransition under test, bound as KDA binds it and in general; the laws of its monitor stand in monitor_laws.cpp.

#include "../../kernels/faults/module_faults.hpp"
#include "../../kernels/modules/plain_modules.hpp"
#include "in_arithmetic.hpp"
#include "monitor_laws.hpp"
#include "step_regimes.hpp"
#include "suites.hpp"
#include "transition_oracle.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fmt/core.h>
#include <limits>

namespace kdacheck {
namespace {

using namespace modules;

/// Sizes of a regime's steps: a few columns, or more than the registers of one pass hold.
StateShape shape_of(std::string_view regime) {
  return regime == "wide-values" ? StateShape{.B = 1, .H = 3, .K = 20, .V = 83} : StateShape{.B = 1, .H = 2, .K = 6, .V = 5};
}

const ModuleRegime wide_values{"wide-values", "K = 20, V = 83: 64 columns at once, a register's, and a rest"};

std::vector<ModuleRegime> kda_regimes() {
  std::vector<ModuleRegime> regimes = step_regimes();
  regimes.push_back({"reflections-at-the-edge", "alpha = 1, beta |k|^2 within a rounding of 2: whether a state grows hangs on a last bit"});
  regimes.push_back(wide_values);
  return regimes;
}

const std::vector<ModuleRegime> general_regimes{{"usual", "d from 0.6 to 1"},
                                                {"heavy-forgetting", "d to 1e-3"},
                                                {"minimal-forgetting", "d above 0.9999"},
                                                {"negative-diagonal", "d from -1 to 1"},
                                                {"long-vectors", "|a| and |b| beyond 1: the state may grow"},
                                                {"bound-as-kda", "a = beta k, b = k (.) d and key beta k: what KDA computes"},
                                                wide_values};

NamedTensors general_inputs(std::string_view regime, std::int64_t R, const StateShape& s, std::uint64_t seed) {
  double least = 0.6, most = 1, size = 0.4;
  if (regime == "heavy-forgetting") least = 0, most = 1e-3;
  if (regime == "minimal-forgetting") least = 0.9999;
  if (regime == "negative-diagonal") least = -1;
  if (regime == "long-vectors") size = 1;
  if (regime == "wide-values") size = 0.2;
  NamedTensors inputs{drawn_tensor("d", {R, s.H, s.K}, least, most, seed, 1), drawn_tensor("a", {R, s.H, s.K}, -size, size, seed, 2),
                      drawn_tensor("b", {R, s.H, s.K}, -size, size, seed, 3), drawn_tensor("k", {R, s.H, s.K}, -size, size, seed, 7),
                      drawn_tensor("v", {R, s.H, s.V}, -1, 1, seed, 4)};
  if (regime != "bound-as-kda") return inputs;
  const std::vector<float> beta = drawn_tensor("beta", {R, s.H}, 0, 1, seed, 8).values, k = inputs[3].values;
  for (std::size_t i = 0; i < k.size(); ++i) {
    inputs[1].values[i] = inputs[3].values[i] = beta[i / static_cast<std::size_t>(s.K)] * k[i];
    inputs[2].values[i] = k[i] * inputs[0].values[i];
  }
  return inputs;
}

/// k of three numbers and beta with beta |k|^2 = 2 + 2^-56: beyond 2, and 2 to the next fp64 number. k[0] stays.
void put_a_rounding_beyond_the_edge(std::span<float> k, float& beta) {
  std::ranges::fill(k.subspan(1), 0.0f);
  const long double first = static_cast<long double>(k[0]) * static_cast<long double>(k[0]); // exact, as the squares below
  beta = std::nextafter(static_cast<float>(2 / first), 0.0f);
  beta = std::nextafter(beta, 0.0f); // below 2 / k[0]^2, whichever way it was rounded
  long double rest = 2 / static_cast<long double>(beta) - first;
  k[1] = std::nextafter(static_cast<float>(std::sqrt(rest)), 0.0f);
  rest -= static_cast<long double>(k[1]) * static_cast<long double>(k[1]);
  k[2] = static_cast<float>(std::sqrt(rest + 0x1p-56L / static_cast<long double>(beta)));
}

/// alpha = 1 and beta the fp32 number next to 2 / |k|^2, or one of its neighbours, or nearer than any fp64 number.
void put_at_the_edge(NamedTensors& inputs) {
  std::ranges::fill(inputs[0].values, 1.0f);
  const auto K = static_cast<std::size_t>(inputs[1].shape[2]);
  for (std::size_t at = 0; at < inputs[2].values.size(); ++at) {
    const std::span<float> k = std::span(inputs[1].values).subspan(at * K, K);
    if (at % 4 == 3 && std::abs(k[0]) > 0.1f) {
      put_a_rounding_beyond_the_edge(k, inputs[2].values[at]);
      continue;
    }
    double square = 0;
    for (const float x : k) square += static_cast<double>(x) * static_cast<double>(x);
    const auto nearest = static_cast<float>(2 / square);
    inputs[2].values[at] = at % 4 == 0 ? nearest : std::nextafter(nearest, at % 4 == 1 ? 0.0f : std::numeric_limits<float>::infinity());
  }
}

ModuleCase draw(Rule rule, std::string_view regime, std::uint64_t seed) {
  const StateShape s = shape_of(regime);
  const bool general = rule == Rule::dplr;
  ModuleCase c{.module = general ? general_transition_module(s.H, s.K, s.V) : transition_module(s.H, s.K, s.V),
               .oracle = {},
               .call = {},
               .cotangents = {}};
  c.regime = regime;
  c.call.cu_seqlens = offsets_of({9, 0, 4});
  const std::int64_t N = c.call.sequences(), R = c.call.rows();
  c.call.inputs = general ? general_inputs(regime, R, s, seed) : step_inputs(regime, R, s.H, s.K, s.V, seed);
  if (regime == "reflections-at-the-edge") put_at_the_edge(c.call.inputs);
  c.call.states = {drawn_tensor("memory", {N, s.H, s.K, s.V}, -1, 1, seed, 5)};
  c.cotangents.states = {drawn_tensor("memory", {N, s.H, s.K, s.V}, -1, 1, seed, 6)};
  c.oracle = {.orders = 1, .evaluate = [=](const ModuleCall& call, const ModuleCotangents* d, const ModuleArithmetic& arithmetic) {
                return in_arithmetic(arithmetic, [&]<class N_>() { return transition_oracle<N_>(rule, s, call, d); });
              }};
  c.planted = [right = c.module](std::string_view fault) { return faulty_module(fault, right); };
  return c;
}
ModuleCase draw_kda(std::string_view regime, std::uint64_t seed) { return draw(Rule::kda, regime, seed); }
ModuleCase draw_general(std::string_view regime, std::uint64_t seed) { return draw(Rule::dplr, regime, seed); }

Finding broken(const char* tensor, std::string detail) {
  return {.verdict = Verdict::failed_property,
          .bound_util = std::numeric_limits<double>::infinity(),
          .place = Place{.tensor = tensor},
          .detail = std::move(detail),
          .metrics = {}};
}

std::span<const float> part(const NamedTensor& tensor, std::int64_t index, std::int64_t width) {
  return std::span(tensor.values).subspan(static_cast<std::size_t>(index * width), static_cast<std::size_t>(width));
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

/// All tokens as one batch and head by head; and the transition alone, which is the update that writes v = 0.
template <class Step> Finding batch_is_its_heads(const ModuleCase& c, const auto& step_of) {
  StateShape s = shape_of(c.regime), one = s;
  s.B = c.call.rows(), one.B = one.H = 1;
  const std::vector<float> start = drawn_tensor("memory", {s.elements()}, -1, 1, 1, 9).values;
  const NamedTensor no_values = zeros("v", c.call.inputs.back().shape);
  const auto stepped = [&](const auto& work) {
    std::vector<float> state = start;
    work(state);
    return state;
  };
  const NamedTensor& values = c.call.inputs.back();
  const auto head = [&](const NamedTensor& v, std::int64_t at) -> Step { return step_of(at, 1, part(v, at, s.V)); };
  const Step whole = step_of(0, s.B * s.H, values.values), unwritten = step_of(0, s.B * s.H, no_values.values);
  const std::vector<float> updated = stepped([&](std::vector<float>& state) { update(s, whole, state); });
  const std::vector<float> apart = stepped([&](std::vector<float>& state) {
    for (std::int64_t at = 0; at < s.B * s.H; ++at)
      update(one, head(values, at),
             std::span(state).subspan(static_cast<std::size_t>(at * s.K * s.V), static_cast<std::size_t>(s.K * s.V)));
  });
  if (!same_bits(updated, apart)) return broken("memory", "a batch at once and head by head differ");
  const std::vector<float> alone = stepped([&](std::vector<float>& state) { transition(s, whole, state); });
  const std::vector<float> nothing = stepped([&](std::vector<float>& state) { update(s, unwritten, state); });
  return same_bits(alone, nothing) ? Finding{} : broken("memory", "the transition is not the update that writes v = 0");
}
Finding kda_batch_is_its_heads(const ModuleCase& c, std::uint64_t) {
  const StateShape s = shape_of(c.regime);
  return batch_is_its_heads<KdaStep>(c, [&](std::int64_t at, std::int64_t heads, std::span<const float> v) -> KdaStep {
    const auto from = [&](std::size_t i, std::int64_t width) {
      return std::span<const float>(c.call.inputs[i].values)
          .subspan(static_cast<std::size_t>(at * width), static_cast<std::size_t>(heads * width));
    };
    return {.alpha = from(0, s.K), .k = from(1, s.K), .beta = from(2, 1), .v = v};
  });
}
Finding general_batch_is_its_heads(const ModuleCase& c, std::uint64_t) {
  const StateShape s = shape_of(c.regime);
  return batch_is_its_heads<DplrStep>(c, [&](std::int64_t at, std::int64_t heads, std::span<const float> v) -> DplrStep {
    const auto from = [&](std::size_t i) {
      return std::span<const float>(c.call.inputs[i].values)
          .subspan(static_cast<std::size_t>(at * s.K), static_cast<std::size_t>(heads * s.K));
    };
    return {.d = from(0), .a = from(1), .b = from(2), .k = from(3), .v = v};
  });
}

std::vector<ModuleFigure> figures_of(std::string_view regime, std::uint64_t seed) { return monitor_figures(draw_kda(regime, seed)); }

std::vector<ModuleFault> faults_of(std::string_view module) {
  std::vector<ModuleFault> faults;
  for (const ModuleFaultInfo& fault : module_faults())
    if (fault.module == module) faults.push_back({std::string(fault.name), std::string(fault.origin), std::string(fault.what)});
  return faults;
}

} // namespace

ModuleSuite transition_suite() {
  ModuleSuite suite{.name = "DPLRTransition",
                    .summary = "one token's transition and update of a batch of states in O(K V), with its monitor",
                    .source = "arXiv 2510.26692, eq. 1 and section 6.2",
                    .regimes = kda_regimes(),
                    .laws = token_laws(),
                    .faults = faults_of("DPLRTransition"),
                    .draw = draw_kda,
                    .figures = figures_of};
  suite.laws.push_back({"a-batch-is-its-heads", "a batch at once and head by head give the same bits; a transition is an update with v = 0",
                        false, kda_batch_is_its_heads});
  for (const ModuleLaw& law : monitor_laws()) suite.laws.push_back(law);
  return suite;
}

ModuleSuite general_transition_suite() {
  ModuleSuite suite{.name = "DPLRTransition.general",
                    .summary = "one token's transition and update with D - a b^T in O(K V), with the norm's bound",
                    .source = "arXiv 2510.26692, section 6.2",
                    .regimes = general_regimes,
                    .laws = token_laws(),
                    .faults = faults_of("DPLRTransition.general"),
                    .draw = draw_general};
  suite.laws.push_back({"a-batch-is-its-heads", "a batch at once and head by head give the same bits; a transition is an update with v = 0",
                        false, general_batch_is_its_heads});
  for (const ModuleLaw& law : general_monitor_laws()) suite.laws.push_back(law);
  return suite;
}

} // namespace kdacheck
