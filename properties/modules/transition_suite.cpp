// DPLRTransition with its monitor, and StateManager, under test.

#include "../../kernels/faults/module_faults.hpp"
#include "../../kernels/modules/plain_modules.hpp"
#include "../../kernels/modules/spectral_monitor.hpp"
#include "../../kernels/modules/state_manager.hpp"
#include "../../reference/recurrence.hpp"
#include "core_oracle.hpp"
#include "drawn_tensors.hpp"
#include "in_arithmetic.hpp"
#include "suites.hpp"

#include <Eigen/SVD>
#include <cstring>
#include <fmt/core.h>
#include <limits>

namespace kdacheck {
namespace {

using namespace modules;

constexpr std::int64_t H = 2, K = 6, V = 5;

template <Number N> ExactTensors transition_oracle(const ModuleCall& call) {
  using core_detail::part_of_tensor;
  ExactTensors result{.outputs = {}, .states = {{}}, .inputs = {}, .parameters = {}, .initials = {}};
  const CoreForm form{H, H, K, V, 1};
  for (std::int64_t n = 0; n < call.sequences(); ++n)
    for (std::int64_t head = 0; head < H; ++head) {
      State<N> S = core_state<N>(form, call.states, n, head);
      for (std::int64_t row = call.cu_seqlens[static_cast<std::size_t>(n)]; row < call.cu_seqlens[static_cast<std::size_t>(n + 1)]; ++row) {
        Token<N> t;
        t.alpha = part_of_tensor<N>(tensor_named(call.inputs, "alpha"), row * H + head, K);
        t.k = part_of_tensor<N>(tensor_named(call.inputs, "k"), row * H + head, K);
        t.v = part_of_tensor<N>(tensor_named(call.inputs, "v"), row * H + head, V);
        t.beta = part_of_tensor<N>(tensor_named(call.inputs, "beta"), row * H + head, 1)[0];
        S = step(Rule::kda, t, S);
      }
      append(result.states[0], S.element);
    }
  return result;
}

ModuleCase draw(std::string_view regime, std::uint64_t seed) {
  ModuleCase c{.module = transition_module(H, K, V), .oracle = {}, .call = {}, .cotangents = {}};
  c.call.cu_seqlens = offsets_of({9, 0, 4});
  const std::int64_t R = c.call.rows(), N = c.call.sequences();
  double least = 0.6, most = 1, beta = 1, size = 0.7;
  if (regime == "heavy-forgetting") least = 0, most = 1e-3;
  if (regime == "minimal-forgetting") least = 0.9999;
  if (regime == "reflections") beta = 2;
  if (regime == "long-keys") size = 1.5;
  c.call.inputs = {drawn_tensor("alpha", {R, H, K}, least, most, seed, 1), drawn_tensor("k", {R, H, K}, -size, size, seed, 2),
                   drawn_tensor("beta", {R, H}, 0, beta, seed, 3), drawn_tensor("v", {R, H, V}, -1, 1, seed, 4)};
  c.call.states = {drawn_tensor("memory", {N, H, K, V}, -1, 1, seed, 5)};
  c.oracle = {.orders = 1, .evaluate = [](const ModuleCall& call, const ModuleCotangents*, const ModuleArithmetic& arithmetic) {
                return in_arithmetic(arithmetic, [&]<class N_>() { return transition_oracle<N_>(call); });
              }};
  c.planted = [right = c.module](std::string_view fault) { return faulty_module(fault, right); };
  return c;
}

/// Tokens alone: the manager starts from zero, and its laws need no oracle.
ModuleCase draw_tokens(std::string_view regime, std::uint64_t seed) {
  ModuleCase c = draw(regime, seed);
  c.call.states.clear();
  c.oracle.evaluate = nullptr;
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
  double largest = 0;
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
    largest = std::max(largest, norm / (bounds.norm + slack));
  }
  return {.verdict = Verdict::passed, .bound_util = largest, .place = {}, .detail = {}, .metrics = {}};
}

StateTokens tokens_between(const ModuleCall& call, std::int64_t first, std::int64_t last) {
  return {.B = 1,
          .T = last - first,
          .alpha = std::span(call.inputs[0].values)
                       .subspan(static_cast<std::size_t>(first * H * K), static_cast<std::size_t>((last - first) * H * K)),
          .k = std::span(call.inputs[1].values)
                   .subspan(static_cast<std::size_t>(first * H * K), static_cast<std::size_t>((last - first) * H * K)),
          .beta =
              std::span(call.inputs[2].values).subspan(static_cast<std::size_t>(first * H), static_cast<std::size_t>((last - first) * H)),
          .v = std::span(call.inputs[3].values)
                   .subspan(static_cast<std::size_t>(first * H * V), static_cast<std::size_t>((last - first) * H * V))};
}
StateManager manager(std::int64_t interval = 0) {
  return StateManager({.largest = {.B = 1, .H = H, .K = K, .V = V}, .checkpoint_interval = interval});
}
std::vector<float> copied(const StateManager& m) { return {m.states().begin(), m.states().end()}; }
bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

Finding one_call_equals_steps(const ModuleCase& c, std::uint64_t) {
  StateManager one = manager(), many = manager();
  one.update(tokens_between(c.call, 0, c.call.rows()));
  for (std::int64_t t = 0; t < c.call.rows(); ++t) many.update(tokens_between(c.call, t, t + 1));
  return same(copied(one), copied(many)) ? Finding{} : broken("memory", "token by token and in one call the states differ");
}

Finding restored_goes_on_alike(const ModuleCase& c, std::uint64_t seed) {
  StateManager m = manager(3);
  const std::int64_t T = c.call.rows();
  m.update(tokens_between(c.call, 0, T));
  const std::vector<float> end = copied(m);
  const std::vector<std::int64_t> steps = m.checkpoint_steps();
  if (steps.size() != static_cast<std::size_t>(T / 3))
    return broken("memory", fmt::format("{} checkpoints after {} tokens at every third", steps.size(), T));
  const std::int64_t step = steps[seed % steps.size()];
  m.restore(step);
  m.update(tokens_between(c.call, step, T));
  return same(copied(m), end) ? Finding{} : broken("memory", fmt::format("restored at step {} it ends elsewhere", step));
}

Finding a_nan_stays_in_its_head(const ModuleCase& c, std::uint64_t seed) {
  ModuleCall poisoned = c.call;
  const std::int64_t T = c.call.rows(), t = static_cast<std::int64_t>(seed % static_cast<std::uint64_t>(T));
  poisoned.inputs[3].values[static_cast<std::size_t>(t * H * V)] = std::numeric_limits<float>::quiet_NaN(); // v of head 0
  StateManager clean = manager(), other = manager();
  clean.update(tokens_between(c.call, 0, T));
  const std::vector<StateFault> faults = other.update(tokens_between(poisoned, 0, T));
  const std::vector<StateFault> wanted{{.kind = StateFault::Kind::restored, .b = 0, .h = 0, .step = t, .elements = K * V}};
  if (faults != wanted) return broken("memory", fmt::format("{} repairs were reported, 1 at step {} is right", faults.size(), t));
  for (std::int64_t i = K * V; i < H * K * V; ++i)
    if (clean.states()[static_cast<std::size_t>(i)] != other.states()[static_cast<std::size_t>(i)])
      return broken("memory", "a NaN in head 0 changed head 1");
  return {};
}

std::vector<ModuleFault> faults_of(std::string_view module) {
  std::vector<ModuleFault> faults;
  for (const ModuleFaultInfo& fault : module_faults())
    if (fault.module == module) faults.push_back({std::string(fault.name), std::string(fault.origin), std::string(fault.what)});
  return faults;
}

const std::vector<ModuleRegime> all_regimes{{"usual", "alpha from 0.6 to 1"},
                                            {"heavy-forgetting", "alpha to 1e-3"},
                                            {"minimal-forgetting", "alpha above 0.9999"},
                                            {"reflections", "beta to 2: negative eigenvalues"},
                                            {"long-keys", "|k| beyond 1: the state may grow"}};

} // namespace

ModuleSuite transition_suite() {
  ModuleSuite suite{.name = "DPLRTransition",
                    .summary = "one token's transition and update of a batch of states in O(K V), with its monitor",
                    .source = "arXiv 2510.26692, eq. 1 and section 6.2",
                    .regimes = all_regimes,
                    .laws = token_laws(),
                    .faults = faults_of("DPLRTransition"),
                    .draw = draw};
  std::erase_if(suite.laws, [](const ModuleLaw& law) { return law.backward; });
  suite.laws.push_back(
      {"monitor-bounds-the-norm", "the monitor's bounds enclose the largest singular value", false, monitor_bounds_the_norm});
  return suite;
}

ModuleSuite state_manager_suite() {
  return {.name = "StateManager",
          .summary = "states of a batch with checkpoints and repairs",
          .source = "arXiv 2510.26692, eq. 1",
          .regimes = all_regimes,
          .laws = {{"one-call-equals-steps", "many tokens in one call and one by one give the same bits", false, one_call_equals_steps},
                   {"restored-goes-on-alike", "from any checkpoint the same tokens lead to the same bits", false, restored_goes_on_alike},
                   {"a-nan-stays-in-its-head", "a NaN is reported once and changes no other head", false, a_nan_stays_in_its_head}},
          .faults = {},
          .draw = draw_tokens};
}

} // namespace kdacheck
