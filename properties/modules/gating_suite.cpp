// FineGrainedGating under test.

#include "../../kernels/faults/module_faults.hpp"
#include "../../kernels/modules/plain_modules.hpp"
#include "../../reference/gating.hpp"
#include "drawn_tensors.hpp"
#include "in_arithmetic.hpp"
#include "kda_layer_oracle.hpp"
#include "suites.hpp"

#include <fmt/core.h>
#include <limits>

namespace kdacheck {
namespace {

using namespace modules;

Gating gating_of(std::string_view regime) {
  Gating g{.D = 12, .rank = 5, .H = 2, .K = 6, .form = GateForm::softplus};
  if (regime == "sigmoid") g.form = GateForm::sigmoid;
  if (regime == "bounded") g.form = GateForm::bounded;
  if (regime == "head-wise") g.per_head = true;
  return g;
}

template <Number N> ExactTensors gating_oracle(const Gating& g, const ModuleCall& call, const ModuleCotangents* d) {
  const std::int64_t R = call.rows(), W = g.width();
  const LowRankGate<N> gate{.form = g.form,
                            .lower_bound = N(static_cast<double>(g.lower_bound)),
                            .columns_per_head = g.per_head ? 1 : g.K,
                            .x = matrix_from<N>(tensor_named(call.inputs, "x"), R, g.D),
                            .down = matrix_from<N>(tensor_named(call.parameters, "down"), g.D, g.rank),
                            .up = matrix_from<N>(tensor_named(call.parameters, "up"), g.rank, W),
                            .A_log = numbers_from<N>(call.parameters, "A_log"),
                            .dt_bias = numbers_from<N>(call.parameters, "dt_bias")};
  const std::vector<Decay<N>> decays = low_rank_gates(gate);
  ExactTensors result{.outputs = {{}, {}}, .states = {}, .inputs = {}, .parameters = {}, .initials = {}};
  for (const Decay<N>& decay : decays) {
    result.outputs[0].push_back(static_cast<double>(decay.alpha));
    result.outputs[1].push_back(static_cast<double>(decay.log_decay));
  }
  if (!d) return result;
  Matrix<N> d_log_decay(R, W);
  if (!d->outputs.empty()) {
    const Matrix<N> d_alpha = matrix_from<N>(tensor_named(d->outputs, "alpha"), R, W);
    d_log_decay = matrix_from<N>(tensor_named(d->outputs, "log_decay"), R, W);
    for (std::size_t i = 0; i < decays.size(); ++i) d_log_decay.element[i] = d_log_decay.element[i] + d_alpha.element[i] * decays[i].alpha;
  }
  const LowRankGateGradients<N> back = low_rank_gates_reverse(gate, d_log_decay);
  append(result.inputs.emplace_back(), back.x.element);
  append(result.parameters.emplace_back(), back.down.element), append(result.parameters.emplace_back(), back.up.element);
  if (g.form != GateForm::sigmoid)
    append(result.parameters.emplace_back(), back.A_log), append(result.parameters.emplace_back(), back.dt_bias);
  return result;
}

ModuleCase draw(std::string_view regime, std::uint64_t seed) {
  const Gating g = gating_of(regime);
  ModuleCase c{.module = gating_module(g), .oracle = {}, .call = {}, .cotangents = {}};
  c.call.cu_seqlens = offsets_of({7, 0, 5});
  const std::int64_t R = c.call.rows(), W = g.width();
  c.call.inputs = {drawn_tensor("x", {R, g.D}, -1, 1, seed, 1)};
  c.call.parameters = {drawn_tensor("down", {g.D, g.rank}, -0.7, 0.7, seed, 2), drawn_tensor("up", {g.rank, W}, -0.7, 0.7, seed, 3)};
  if (g.form != GateForm::sigmoid) {
    double A_low = -1, A_high = 1, bias = 0;
    if (regime == "nearly-one") A_low = -10, A_high = -8, bias = -20;
    if (regime == "nearly-zero") A_low = 4, A_high = 6, bias = 20;
    if (regime == "far-logits") bias = 40;
    c.call.parameters.push_back(drawn_tensor("A_log", {g.H}, A_low, A_high, seed, 4));
    c.call.parameters.push_back(drawn_tensor("dt_bias", {W}, bias == 40 ? -40 : bias - 0.5, bias + 0.5, seed, 5));
  }
  c.cotangents.outputs = {drawn_tensor("alpha", {R, W}, -1, 1, seed, 6), drawn_tensor("log_decay", {R, W}, -1, 1, seed, 7)};
  c.oracle = {.orders = 1, .evaluate = [g](const ModuleCall& call, const ModuleCotangents* d, const ModuleArithmetic& arithmetic) {
                return in_arithmetic(arithmetic, [&]<class N>() { return gating_oracle<N>(g, call, d); });
              }};
  c.planted = [right = c.module](std::string_view fault) { return faulty_module(fault, right); };
  return c;
}

Finding in_range(const ModuleCase& c, std::uint64_t) {
  const ModuleResult result = c.module.forward(c.call);
  for (const NamedTensor& tensor : result.outputs)
    for (std::size_t i = 0; i < tensor.values.size(); ++i) {
      const float x = tensor.values[i];
      if (tensor.name == "alpha" ? x >= 0 && x <= 1 : x <= 0) continue;
      return {.verdict = Verdict::failed_property,
              .bound_util = std::numeric_limits<double>::infinity(),
              .place = Place{.tensor = tensor.name},
              .detail = fmt::format("{}[{}] is {}", tensor.name, i, x),
              .metrics = {}};
    }
  return {};
}

} // namespace

ModuleSuite gating_suite() {
  ModuleSuite suite{.name = "FineGrainedGating",
                    .summary = "decay gates of every channel or head through two thin projections, forward and backward",
                    .source = "arXiv 2510.26692, section 3.1",
                    .regimes = {{"softplus", "the published gate"},
                                {"sigmoid", "the plain gate"},
                                {"bounded", "with a lower bound"},
                                {"head-wise", "one gate per head"},
                                {"nearly-one", "A_log to -10, logits near -20: 1 - alpha would cancel"},
                                {"nearly-zero", "A_log to 6, logits near 20: alpha underflows"},
                                {"far-logits", "biases from -40 to 40"}},
                    .laws = token_laws(),
                    .faults = {},
                    .draw = draw};
  suite.laws.push_back({"gates-stay-in-range", "0 <= alpha <= 1 and ln alpha <= 0, never NaN", false, in_range});
  for (const ModuleFaultInfo& fault : module_faults())
    if (fault.module == suite.name) suite.faults.push_back({std::string(fault.name), std::string(fault.origin), std::string(fault.what)});
  return suite;
}

} // namespace kdacheck
