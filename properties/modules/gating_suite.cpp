// FineGrainedGating under test.

#include "../../kernels/faults/module_faults.hpp"
#include "../../kernels/modules/plain_modules.hpp"
#include "../../reference/gating.hpp"
#include "drawn_tensors.hpp"
#include "in_arithmetic.hpp"
#include "kda_layer_oracle.hpp"
#include "suites.hpp"

#include <algorithm>
#include <cmath>
#include <fmt/core.h>
#include <limits>

namespace kdacheck {
namespace {

using namespace modules;

Gating gating_of(std::string_view regime) {
  Gating g{.D = 12, .rank = 5, .H = 2, .K = 6, .form = GateForm::softplus};
  if (regime == "sigmoid") g.form = GateForm::sigmoid;
  if (regime == "bounded") g.form = GateForm::bounded;
  if (regime == "head-wise" || regime == "many-heads") g.per_head = true;
  if (regime == "many-heads") g.H = 19; // more than a register
  if (regime == "other-bound") g.form = GateForm::bounded, g.lower_bound = -1.5f, g.K = 20;
  if (regime == "many-rows-sigmoid") g.form = GateForm::sigmoid;
  if (regime == "many-rows-bounded" || regime == "half-of-the-bound") g.form = GateForm::bounded;
  if (regime.starts_with("many-rows")) g.D = 19, g.rank = 17, g.H = 4, g.K = 16; // whole bands of 8 rows, blocks of 32 columns
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
  if (!gate.A_log.empty()) append(result.parameters.emplace_back(), back.A_log);
  if (!gate.dt_bias.empty()) append(result.parameters.emplace_back(), back.dt_bias);
  return result;
}

ModuleCase draw(std::string_view regime, std::uint64_t seed) {
  const Gating g = gating_of(regime);
  ModuleCase c{.module = gating_module(g), .oracle = {}, .call = {}, .cotangents = {}};
  c.regime = regime;
  c.call.cu_seqlens = offsets_of(regime == "many-rows"             ? std::vector<std::int64_t>{61, 0, 14}
                                 : regime.starts_with("many-rows") ? std::vector<std::int64_t>{37, 37}
                                                                   : std::vector<std::int64_t>{7, 0, 5});
  const std::int64_t R = c.call.rows(), W = g.width();
  c.call.inputs = {drawn_tensor("x", {R, g.D}, -1, 1, seed, 1)};
  c.call.parameters = {drawn_tensor("down", {g.D, g.rank}, -0.7, 0.7, seed, 2), drawn_tensor("up", {g.rank, W}, -0.7, 0.7, seed, 3)};
  if (g.form != GateForm::sigmoid) {
    double A_low = -1, A_high = 1, bias = 0;
    if (regime == "nearly-one") A_low = -10, A_high = -8, bias = -20;
    if (regime == "nearly-zero") A_low = 4, A_high = 6, bias = 20;
    if (regime == "far-logits") bias = 40;
    if (regime == "huge-rates") A_low = 40, A_high = 85;
    c.call.parameters.push_back(drawn_tensor("A_log", {g.H}, A_low, A_high, seed, 4));
    if (regime == "never-forgets" || regime == "half-of-the-bound")
      c.call.parameters.back().values.back() = -std::numeric_limits<float>::infinity();
    c.call.parameters.push_back(drawn_tensor("dt_bias", {W}, bias == 40 ? -40 : bias - 0.5, bias + 0.5, seed, 5));
    if (regime == "huge-rates")
      for (std::size_t i = 0; i < c.call.parameters[3].values.size(); ++i)
        c.call.parameters[3].values[i] -= c.call.parameters[2].values[i / static_cast<std::size_t>(g.K)];
    if (regime == "no-bias") c.call.parameters.pop_back();
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
      if (tensor.name == "alpha" ? x >= 0 && x <= 1 : x <= 0 && x >= std::numeric_limits<float>::lowest()) continue;
      return {.verdict = Verdict::failed_property,
              .bound_util = std::numeric_limits<double>::infinity(),
              .place = Place{.tensor = tensor.name},
              .detail = fmt::format("{}[{}] is {}", tensor.name, i, x),
              .metrics = {}};
    }
  return {};
}

/// Logits of one row of x, in fp64.
std::vector<double> logits_of(const Gating& g, const ModuleCall& call, const float* x) {
  const std::vector<float>&down = tensor_named(call.parameters, "down").values, &up = tensor_named(call.parameters, "up").values;
  std::vector<double> logits(static_cast<std::size_t>(g.width()), 0.0);
  for (std::int64_t r = 0; r < g.rank; ++r) {
    double hidden = 0;
    for (std::int64_t d = 0; d < g.D; ++d) hidden += static_cast<double>(x[d]) * down[static_cast<std::size_t>(d * g.rank + r)];
    for (std::int64_t c = 0; c < g.width(); ++c)
      logits[static_cast<std::size_t>(c)] += hidden * up[static_cast<std::size_t>(r * g.width() + c)];
  }
  return logits;
}

/// Multiples of one row of x: the logit of a column rises or falls with the multiple, and the gate with the logit, up to twice the
/// error that `gates` states of a result. Columns whose logit is nearly 0 say nothing.
Finding gates_are_monotone(const ModuleCase& c, std::uint64_t) {
  constexpr std::int64_t most = 20, rows = 2 * most + 1;
  constexpr double u = 0x1p-24, subnormal = 0x1p-140;
  const Gating g = gating_of(c.regime);
  ModuleCall call = c.call;
  call.cu_seqlens = offsets_of({rows});
  call.mask.clear();
  NamedTensor& x = call.inputs.front();
  const std::vector<float> row(x.values.begin(), x.values.begin() + g.D);
  x.shape[0] = rows;
  x.values.clear();
  for (std::int64_t multiple = -most; multiple <= most; ++multiple)
    for (const float element : row) x.values.push_back(static_cast<float>(multiple) * element);
  const std::vector<double> logits = logits_of(g, call, row.data());
  const ModuleResult result = c.module.forward(call);
  const auto &alpha = tensor_named(result.outputs, "alpha").values, &log_decay = tensor_named(result.outputs, "log_decay").values;
  std::size_t compared = 0;
  for (std::size_t column = 0; column < logits.size(); ++column) {
    if (!(std::abs(logits[column]) > 0.01)) continue;
    const bool rising = (logits[column] > 0) == (g.form == GateForm::sigmoid);
    for (std::int64_t i = 0; i + 1 < rows; ++i) {
      const auto at = [&](std::int64_t place) { return static_cast<std::size_t>(place) * logits.size() + column; };
      const std::size_t less = at(rising ? i : i + 1), more = at(rising ? i + 1 : i);
      const double decay = log_decay[less];
      const double slack = 2 * 16 * u * std::abs(decay) + subnormal, of_alpha = alpha[less] * (slack + 2 * 8 * u) + subnormal;
      ++compared;
      if (decay <= log_decay[more] + slack && alpha[less] <= alpha[more] + of_alpha) continue;
      return {.verdict = Verdict::failed_property,
              .bound_util = std::numeric_limits<double>::infinity(),
              .place = Place{.tensor = "alpha"},
              .detail = fmt::format("column {}: between {} and {} times x the logit {} and alpha goes from {:.9g} to {:.9g}, its logarithm "
                                    "from {:.9g} to {:.9g}",
                                    column, i - most, i + 1 - most, logits[column] > 0 ? "rises" : "falls", alpha[at(i)], alpha[at(i + 1)],
                                    log_decay[at(i)], log_decay[at(i + 1)]),
              .metrics = {}};
    }
  }
  if (compared == 0) return {.verdict = Verdict::not_supported, .place = {}, .detail = "every logit is nearly 0", .metrics = {}};
  return {};
}

/// Two rows of finite numbers whose sums overflow fp32: in the narrow projection, and only in the wide one. Where the exact logit is
/// beyond fp32 the gate is at its end, by the logit's sign; other rows keep their bits.
Finding overflow_has_a_gate(const ModuleCase& c, std::uint64_t seed) {
  const Gating g = gating_of(c.regime);
  ModuleCall call = c.call;
  for (float& x : tensor_named(call.parameters, "up").values) x *= 1e6f;
  const ModuleResult before = c.module.forward(call);
  NamedTensor& x = call.inputs.front();
  const std::int64_t R = call.rows(), wide = static_cast<std::int64_t>(seed % static_cast<std::uint64_t>(R)), narrow = (wide + R / 2) % R;
  for (std::int64_t i = 0; i < g.D; ++i) {
    x.values[static_cast<std::size_t>(wide * g.D + i)] *= 1e34f;
    x.values[static_cast<std::size_t>(narrow * g.D + i)] = std::copysign(3e38f, x.values[static_cast<std::size_t>(narrow * g.D + i)]);
  }
  const ModuleResult after = c.module.forward(call);
  const ModuleGradients slopes = c.module.backward(call, c.cotangents);
  const auto broken_at = [](const std::string& tensor, std::int64_t row, std::string detail) {
    Finding finding{.verdict = Verdict::failed_property,
                    .bound_util = std::numeric_limits<double>::infinity(),
                    .place = Place{.tensor = tensor},
                    .detail = std::move(detail),
                    .metrics = {}};
    finding.place->row = row;
    return finding;
  };
  const auto &alpha = tensor_named(after.outputs, "alpha").values, &log_decay = tensor_named(after.outputs, "log_decay").values;
  const std::int64_t W = g.width();
  const auto flat = [&](std::int64_t column) { // A_log = -inf: the logit counts for nothing
    return g.form != GateForm::sigmoid &&
           std::isinf(tensor_named(call.parameters, "A_log").values[static_cast<std::size_t>(g.per_head ? column : column / g.K)]);
  };
  int compared = 0;
  for (std::int64_t row = 0; row < R; ++row) {
    const bool poured = row == wide || row == narrow;
    const std::vector<double> logits = logits_of(g, call, x.values.data() + row * g.D);
    for (std::int64_t column = 0; column < W; ++column) {
      const auto at = static_cast<std::size_t>(row * W + column);
      if (!poured) {
        for (const NamedTensor& tensor : before.outputs)
          if (tensor.values[at] != tensor_named(after.outputs, tensor.name).values[at])
            return broken_at(tensor.name, row, fmt::format("a row that overflows changed {} of row {}", tensor.name, row));
        continue;
      }
      if (!(alpha[at] >= 0 && alpha[at] <= 1 && log_decay[at] <= 0 && log_decay[at] >= std::numeric_limits<float>::lowest()))
        return broken_at("alpha", row,
                         fmt::format("row {}: a logit of {:.3g} gives alpha {}, its logarithm {}", row,
                                     logits[static_cast<std::size_t>(column)], alpha[at], log_decay[at]));
      const double logit = logits[static_cast<std::size_t>(column)];
      if (std::abs(logit) <= 1e36) continue; // a sum that cancelled; 1e36 is far beyond where any gate is at its end
      ++compared;
      const bool keeps = (logit > 0) == (g.form == GateForm::sigmoid);
      const double bound = g.form == GateForm::bounded ? static_cast<double>(g.lower_bound) : -std::numeric_limits<double>::infinity();
      const double end = flat(column) ? std::exp(g.form == GateForm::bounded ? bound / 2 : 0.0) : keeps ? 1.0 : std::exp(bound);
      // e^{lower_bound}, lower_bound of a few units, in fp32: an error of 2^-24 |lower_bound| and a few units in the last place
      if (!(std::abs(static_cast<double>(alpha[at]) - end) <= 1e-6 * end))
        return broken_at("alpha", row,
                         fmt::format("row {}: a logit of {:.3g} gives alpha {:.9g}, {:.9g} is its end", row, logit, alpha[at], end));
    }
  }
  const NamedTensor& d_x = tensor_named(slopes.inputs, "x");
  const bool holds = c.regime != "huge-rates"; // rates near the end of fp32 make slopes that are beyond it
  for (std::size_t i = 0; i < d_x.values.size() && holds; ++i)
    if (const std::int64_t row = static_cast<std::int64_t>(i) / g.D; std::isnan(d_x.values[i]))
      return broken_at("dx", row, fmt::format("row {}: the gradient of x[{}] is {}", row, i, d_x.values[i]));
  if (compared == 0) return {.verdict = Verdict::not_supported, .place = {}, .detail = "every sum cancelled", .metrics = {}};
  return {};
}

/// A caller who wants alpha alone gets the bits that stand beside ln alpha.
Finding alpha_alone_is_the_same(const ModuleCase& c, std::uint64_t) {
  const ModuleResult both = c.module.forward(c.call);
  const Gating g = gating_of(c.regime);
  std::vector<float> alone(static_cast<std::size_t>(c.call.rows() * g.width()), -1.0f);
  const NamedTensors& p = c.call.parameters;
  const auto given = [&](const char* name) {
    const auto found = std::ranges::find(p, name, &NamedTensor::name);
    return found == p.end() ? std::vector<float>{} : found->values;
  };
  gates(g, {.down = given("down"), .up = given("up"), .A_log = given("A_log"), .dt_bias = given("dt_bias")},
        {.B = 1, .T = c.call.rows(), .x = tensor_named(c.call.inputs, "x").values}, {.alpha = alone, .log_decay = {}});
  const std::vector<float>& alpha = tensor_named(both.outputs, "alpha").values;
  for (std::size_t i = 0; i < alone.size(); ++i)
    if (!(alone[i] == alpha[i]))
      return {.verdict = Verdict::failed_property,
              .bound_util = std::numeric_limits<double>::infinity(),
              .place = Place{.tensor = "alpha"},
              .detail = fmt::format("alpha[{}] is {:.9g} alone and {:.9g} beside its logarithm", i, alone[i], alpha[i]),
              .metrics = {}};
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
                                {"many-heads", "one gate for each of 19 heads"},
                                {"nearly-one", "A_log to -10, logits near -20: 1 - alpha would cancel"},
                                {"nearly-zero", "A_log to 6, logits near 20: alpha underflows"},
                                {"other-bound", "a bound of -1.5, which is no default; heads of 20 channels, more than a register"},
                                {"far-logits", "biases from -40 to 40"},
                                {"huge-rates", "A_log to 85 and biases that undo it: near the end of fp32, where it is cut off"},
                                {"never-forgets", "A_log of -inf in one head: alpha is 1 there"},
                                {"half-of-the-bound", "the same with the bounded gate: half of its bound for any logit"},
                                {"no-bias", "no dt_bias is given"},
                                {"many-rows", "75 rows of 64 gates: several bands, whole registers, threads"},
                                {"many-rows-sigmoid", "74 rows as a batch of two, the plain gate"},
                                {"many-rows-bounded", "74 rows as a batch of two, with a lower bound"}},
                    .laws = token_laws(),
                    .faults = {},
                    .draw = draw};
  suite.laws.push_back({"gates-stay-in-range", "0 <= alpha <= 1 and ln alpha <= 0, never NaN or infinite", false, in_range});
  suite.laws.push_back(
      {"gates-are-monotone", "a larger logit keeps more with the plain gate, less with the others", false, gates_are_monotone});
  suite.laws.push_back(
      {"overflow-has-a-gate",
       "where sums of finite numbers overflow, the gate is at its end by the logit's sign, its slope is a number, and other "
       "rows keep their bits",
       false, overflow_has_a_gate});
  suite.laws.push_back(
      {"alpha-alone-is-the-same", "alpha has the same bits whether its logarithm is asked for or not", false, alpha_alone_is_the_same});
  for (const ModuleFaultInfo& fault : module_faults())
    if (fault.module == suite.name) suite.faults.push_back({std::string(fault.name), std::string(fault.origin), std::string(fault.what)});
  return suite;
}

} // namespace kdacheck
