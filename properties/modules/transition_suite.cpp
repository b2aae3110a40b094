// DPLRTransition with its monitor under test.

#include "../../kernels/faults/module_faults.hpp"
#include "../../kernels/modules/plain_modules.hpp"
#include "../../kernels/modules/spectral_monitor.hpp"
#include "../../reference/adjoint.hpp"
#include "core_oracle.hpp"
#include "in_arithmetic.hpp"
#include "step_regimes.hpp"
#include "suites.hpp"

#include <Eigen/SVD>
#include <fmt/core.h>
#include <limits>

namespace kdacheck {
namespace {

using namespace modules;

constexpr std::int64_t H = 2, K = 6, V = 5;

/// d loss / d alpha of a step, from what `step_reverse` is given.
template <Number N> std::vector<N> alpha_gradient(const Token<N>& t, const State<N>& before, State<N> Lambda) {
  add_outer(Lambda, times(N(-t.beta), t.k), transposed_times(Lambda, t.k));
  return row_dots(before, Lambda);
}

template <Number N> ExactTensors transition_oracle(const ModuleCall& call, const ModuleCotangents* d) {
  using core_detail::part_of_tensor;
  using layer_detail::put_part;
  ExactTensors result{.outputs = {}, .states = {{}}, .inputs = {}, .parameters = {}, .initials = {}};
  const CoreForm form{H, H, K, V, 1};
  const std::int64_t R = call.rows();
  Matrix<N> d_alpha(R, H * K), d_k(R, H * K), d_beta(R, H), d_v(R, H * V);
  for (std::int64_t n = 0; n < call.sequences(); ++n)
    for (std::int64_t head = 0; head < H; ++head) {
      const std::int64_t first = call.cu_seqlens[static_cast<std::size_t>(n)], last = call.cu_seqlens[static_cast<std::size_t>(n + 1)];
      std::vector<State<N>> states{core_state<N>(form, call.states, n, head)};
      std::vector<Token<N>> tokens;
      for (std::int64_t row = first; row < last; ++row) {
        Token<N> t;
        t.alpha = part_of_tensor<N>(tensor_named(call.inputs, "alpha"), row * H + head, K);
        t.k = part_of_tensor<N>(tensor_named(call.inputs, "k"), row * H + head, K);
        t.v = part_of_tensor<N>(tensor_named(call.inputs, "v"), row * H + head, V);
        t.beta = part_of_tensor<N>(tensor_named(call.inputs, "beta"), row * H + head, 1)[0];
        states.push_back(step(Rule::kda, t, states.back()));
        tokens.push_back(std::move(t));
      }
      append(result.states[0], states.back().element);
      if (!d) continue;
      State<N> Lambda = core_state<N>(form, d->states, n, head);
      for (std::int64_t row = last - 1; row >= first; --row) {
        const auto here = static_cast<std::size_t>(row - first);
        put_part(d_alpha, row, head, alpha_gradient(tokens[here], states[here], Lambda));
        const TokenGradient<N> back = step_reverse(Rule::kda, tokens[here], states[here], Lambda);
        put_part(d_k, row, head, back.k), put_part(d_v, row, head, back.v);
        d_beta(row, head) = back.beta;
      }
      if (!call.states.empty()) result.initials.resize(1), append(result.initials[0], Lambda.element);
    }
  if (d)
    for (const auto* gradient : {&d_alpha, &d_k, &d_beta, &d_v}) append(result.inputs.emplace_back(), gradient->element);
  return result;
}

ModuleCase draw(std::string_view regime, std::uint64_t seed) {
  ModuleCase c{.module = transition_module(H, K, V), .oracle = {}, .call = {}, .cotangents = {}};
  c.call.cu_seqlens = offsets_of({9, 0, 4});
  const std::int64_t N = c.call.sequences();
  c.call.inputs = step_inputs(regime, c.call.rows(), H, K, V, seed);
  c.call.states = {drawn_tensor("memory", {N, H, K, V}, -1, 1, seed, 5)};
  c.cotangents.states = {drawn_tensor("memory", {N, H, K, V}, -1, 1, seed, 6)};
  c.oracle = {.orders = 1, .evaluate = [](const ModuleCall& call, const ModuleCotangents* d, const ModuleArithmetic& arithmetic) {
                return in_arithmetic(arithmetic, [&]<class N_>() { return transition_oracle<N_>(call, d); });
              }};
  c.planted = [right = c.module](std::string_view fault) { return faulty_module(fault, right); };
  return c;
}

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

/// The largest singular value of (I - beta k k^T) Diag(alpha) is no larger than the monitor's bound; Jacobi's is right to
/// K^2 roundings of the matrix's norm.
Finding monitor_bounds_the_norm(const ModuleCase& c, std::uint64_t) {
  for (std::int64_t at = 0; at < c.call.rows() * H; ++at) {
    const auto alpha = part(c.call.inputs[0], at, K), k = part(c.call.inputs[1], at, K);
    const float beta = c.call.inputs[2].values[static_cast<std::size_t>(at)];
    Eigen::MatrixXd A(K, K);
    for (std::int64_t i = 0; i < K; ++i)
      for (std::int64_t j = 0; j < K; ++j)
        A(i, j) = ((i == j ? 1.0 : 0.0) - static_cast<double>(beta) * static_cast<double>(k[static_cast<std::size_t>(i)]) *
                                              static_cast<double>(k[static_cast<std::size_t>(j)])) *
                  static_cast<double>(alpha[static_cast<std::size_t>(j)]);
    const double norm = Eigen::JacobiSVD<Eigen::MatrixXd>(A).singularValues()(0);
    const TransitionBounds bounds = transition_bounds(alpha, k, beta);
    const double slack = static_cast<double>(K * K) * 0x1p-52 * A.norm();
    if (!(norm <= bounds.norm + slack))
      return broken("alpha", fmt::format("token and head {}: the norm is {:.17g}, its bound {:.17g}", at, norm, bounds.norm));
    if (!(bounds.norm_at_least <= norm + slack))
      return broken("alpha",
                    fmt::format("token and head {}: the norm is {:.17g}, at least {:.17g} was said", at, norm, bounds.norm_at_least));
  }
  return {}; // norm / bound is 1 where the bound is sharp, as it often is: no error that the report's error / bound should show
}

/// What the monitor proves of a case's transitions, and where the heuristic warns beside it.
std::vector<ModuleFigure> monitor_figures(std::string_view regime, std::uint64_t seed) {
  const ModuleCase c = draw(regime, seed);
  SpectralMonitor monitor({.B = 1, .H = H, .K = K, .V = V}, c.call.rows());
  for (std::int64_t row = 0; row < c.call.rows(); ++row)
    monitor.observe({.alpha = part(c.call.inputs[0], row, H * K),
                     .k = part(c.call.inputs[1], row, H * K),
                     .beta = part(c.call.inputs[2], row, H),
                     .v = {}});
  const MonitorCounts& counts = monitor.counts();
  const auto number = [](std::int64_t count) { return static_cast<double>(count); };
  return {{"transitions", number(counts.tokens)},
          {"proved not to grow", number(counts.proved_within)},
          {"proved to grow", number(counts.proved_growing)},
          {"heuristic warns", number(counts.heuristic_alarms)},
          {"false alarms", number(counts.false_alarms)},
          {"growth it misses", number(counts.silent_growth)},
          {"largest norm, bound", counts.largest_norm},
          {"largest radius, bound", counts.largest_radius}};
}

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
                    .regimes = step_regimes(),
                    .laws = token_laws(),
                    .faults = faults_of("DPLRTransition"),
                    .draw = draw,
                    .figures = monitor_figures};
  suite.laws.push_back(
      {"monitor-bounds-the-norm", "the monitor's bounds enclose the largest singular value", false, monitor_bounds_the_norm});
  return suite;
}

} // namespace kdacheck
