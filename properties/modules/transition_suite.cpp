// DPLRTransition under test, bound as KDA binds it and in general, with its monitor.

#include "../../kernels/faults/module_faults.hpp"
#include "../../kernels/modules/plain_modules.hpp"
#include "../../kernels/modules/spectral_monitor.hpp"
#include "in_arithmetic.hpp"
#include "step_regimes.hpp"
#include "suites.hpp"
#include "transition_oracle.hpp"

#include <Eigen/Eigenvalues>
#include <Eigen/SVD>
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

/// alpha = 1 and beta the fp32 number next to 2 / |k|^2, or one of its neighbours.
void put_at_the_edge(NamedTensors& inputs) {
  std::ranges::fill(inputs[0].values, 1.0f);
  const auto K = static_cast<std::size_t>(inputs[1].shape[2]);
  for (std::size_t at = 0; at < inputs[2].values.size(); ++at) {
    double square = 0;
    for (std::size_t i = at * K; i < (at + 1) * K; ++i)
      square += static_cast<double>(inputs[1].values[i]) * static_cast<double>(inputs[1].values[i]);
    const auto nearest = static_cast<float>(2 / square);
    inputs[2].values[at] = at % 3 == 0 ? nearest : std::nextafter(nearest, at % 3 == 1 ? 0.0f : std::numeric_limits<float>::infinity());
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

Eigen::VectorXd vector(std::span<const float> values) {
  return Eigen::Map<const Eigen::VectorXf>(values.data(), static_cast<Eigen::Index>(values.size())).cast<double>();
}

/// (I - beta k k^T) Diag(alpha) of a token and head, both counted together.
struct Transition {
  std::span<const float> alpha, k;
  float beta;
  Eigen::MatrixXd matrix() const {
    const Eigen::VectorXd key = vector(k), kept = vector(alpha);
    return (Eigen::MatrixXd::Identity(key.size(), key.size()) - static_cast<double>(beta) * key * key.transpose()) * kept.asDiagonal();
  }
};
Transition transition_at(const ModuleCase& c, std::int64_t at) {
  const std::int64_t K = c.call.inputs[0].shape[2];
  return {part(c.call.inputs[0], at, K), part(c.call.inputs[1], at, K), c.call.inputs[2].values[static_cast<std::size_t>(at)]};
}
std::int64_t transitions(const ModuleCase& c) { return c.call.rows() * c.call.inputs[0].shape[1]; }

/// Jacobi's singular values are right to K^2 roundings of the matrix's norm.
double norm_of(const Eigen::MatrixXd& A) { return Eigen::JacobiSVD<Eigen::MatrixXd>(A).singularValues()(0); }
double slack_of(const Eigen::MatrixXd& A) { return static_cast<double>(A.size()) * 0x1p-52 * A.norm(); }

Finding encloses(const Eigen::MatrixXd& A, const TransitionBounds& bounds, std::int64_t at) {
  const double norm = norm_of(A), slack = slack_of(A);
  if (!(norm <= bounds.norm + slack))
    return broken("alpha", fmt::format("token and head {}: the norm is {:.17g}, its bound {:.17g}", at, norm, bounds.norm));
  if (!(bounds.norm_at_least <= norm + slack))
    return broken("alpha",
                  fmt::format("token and head {}: the norm is {:.17g}, at least {:.17g} was said", at, norm, bounds.norm_at_least));
  return {}; // norm / bound is 1 where the bound is sharp, as it often is: no error that the report's error / bound should show
}

/// Where all alpha are alike, a, the norm and the radius are a max(1, |1 - beta |k|^2|): known to 64 bits, not to those of a
/// decomposition. NaN elsewhere.
long double known_norm(const Transition& one) {
  long double square = 0;
  for (const float x : one.k) square += static_cast<long double>(x) * static_cast<long double>(x);
  const auto [least, most] = std::ranges::minmax(one.alpha);
  if (least < most || one.k.size() < 2) return std::numeric_limits<long double>::quiet_NaN();
  return static_cast<long double>(most) * std::max(1.0L, std::fabs(1 - static_cast<long double>(one.beta) * square));
}

/// The largest singular value of every transition, with its beta and with the opposite one, is no larger than the monitor's bound; and
/// the bound no larger than the product of the factors' norms, which it is to sharpen.
Finding monitor_bounds_the_norm(const ModuleCase& c, std::uint64_t) {
  for (std::int64_t at = 0; at < transitions(c); ++at)
    for (const float sign : {1.0f, -1.0f}) {
      Transition one = transition_at(c, at);
      one.beta *= sign;
      const TransitionBounds bounds = transition_bounds(one.alpha, one.k, one.beta);
      if (Finding finding = encloses(one.matrix(), bounds, at); is_failure(finding.verdict)) return finding;
      // known_norm adds up K squares and forms two products, each rounded to 64 bits; where it says nothing it is NaN
      const long double known = known_norm(one), least = known * (1 - static_cast<long double>(one.k.size() + 2) * 0x1p-63L);
      if (!std::isnan(known) && !(bounds.norm >= least && bounds.radius >= least))
        return broken("alpha", fmt::format("token and head {}: norm and radius are {:.20g}, their bounds {:.20g} and {:.20g}", at,
                                           static_cast<double>(known), bounds.norm, bounds.radius));
      const double reflection = std::abs(1 - static_cast<double>(one.beta) * vector(one.k).squaredNorm());
      const double product = vector(one.alpha).maxCoeff() * std::max(1.0, reflection) * (1 + 0x1p-30); // K fp64 roundings, with room
      if (!(bounds.norm <= product))
        return broken("alpha",
                      fmt::format("token and head {}: a bound of {:.17g}, the factors' norms give {:.17g}", at, bounds.norm, product));
    }
  return {};
}

/// Eigenvalues are those of the symmetric D - beta u u^T, u = D^{1/2} k.
Finding monitor_bounds_the_radius(const ModuleCase& c, std::uint64_t) {
  for (std::int64_t at = 0; at < transitions(c); ++at)
    for (const float sign : {1.0f, -1.0f}) {
      Transition one = transition_at(c, at);
      one.beta *= sign;
      const Eigen::VectorXd kept = vector(one.alpha), u = kept.cwiseSqrt().cwiseProduct(vector(one.k));
      const Eigen::MatrixXd A = Eigen::MatrixXd(kept.asDiagonal()) - static_cast<double>(one.beta) * u * u.transpose();
      const double radius = Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd>(A).eigenvalues().cwiseAbs().maxCoeff();
      const TransitionBounds bounds = transition_bounds(one.alpha, one.k, one.beta);
      if (!(radius <= bounds.radius + slack_of(A)))
        return broken("alpha", fmt::format("token and head {}: the radius is {:.17g}, its bound {:.17g}", at, radius, bounds.radius));
      if (!(bounds.radius <= bounds.norm))
        return broken("alpha",
                      fmt::format("token and head {}: a radius of {:.17g} beside a norm of {:.17g}", at, bounds.radius, bounds.norm));
    }
  return {};
}

/// A monitor over a window shorter than the call: its bound on the product of the last transitions, and its counts, which are those of
/// the tokens' own bounds.
Finding monitor_watches_a_window(const ModuleCase& c, std::uint64_t seed) {
  const StateShape s = shape_of(c.regime);
  const std::int64_t R = c.call.rows(), window = 1 + static_cast<std::int64_t>(seed % 5);
  SpectralMonitor monitor(s, window);
  MonitorCounts counts;
  for (std::int64_t row = 0; row < R; ++row) {
    monitor.observe({.alpha = part(c.call.inputs[0], row, s.H * s.K),
                     .k = part(c.call.inputs[1], row, s.H * s.K),
                     .beta = part(c.call.inputs[2], row, s.H),
                     .v = {}});
    for (std::int64_t h = 0; h < s.H; ++h) {
      const Transition one = transition_at(c, row * s.H + h);
      const TransitionBounds bounds = transition_bounds(one.alpha, one.k, one.beta);
      const bool alarm = bounds.heuristic > 1, within = bounds.norm <= 1, growing = bounds.norm_at_least > 1;
      ++counts.tokens, counts.proved_within += within, counts.proved_growing += growing, counts.heuristic_alarms += alarm;
      counts.false_alarms += alarm && within, counts.silent_growth += !alarm && growing;
      counts.largest_norm = std::max(counts.largest_norm, bounds.norm),
      counts.largest_radius = std::max(counts.largest_radius, bounds.radius);
      Eigen::MatrixXd product = Eigen::MatrixXd::Identity(s.K, s.K);
      double bound = 0, size = 0; // of the product, from the tokens' own
      for (std::int64_t back = std::min(window, row + 1) - 1; back >= 0; --back) {
        const Transition before = transition_at(c, (row - back) * s.H + h);
        product = before.matrix() * product;
        const double term = std::log2(transition_bounds(before.alpha, before.k, before.beta).norm);
        bound += term, size += std::abs(term);
      }
      const double said = monitor.window_norm_log2(0, h), norm = std::log2(norm_of(product));
      if (!(norm <= said + static_cast<double>(R * s.K * s.K) * 0x1p-50))
        return broken("alpha", fmt::format("token {}, head {}: the product of {} grows by 2^{:.17g}, its bound is 2^{:.17g}", row, h,
                                           std::min(window, row + 1), norm, said));
      if (!(std::abs(said - bound) <= size * 0x1p-40))
        return broken("alpha",
                      fmt::format("token {}, head {}: the window's bound is 2^{:.17g}, its tokens' 2^{:.17g}", row, h, said, bound));
    }
  }
  return monitor.counts() == counts ? Finding{} : broken("alpha", "the monitor's counts are not those of its tokens");
}

Finding monitor_bounds_the_general_norm(const ModuleCase& c, std::uint64_t) {
  const std::int64_t K = c.call.inputs[0].shape[2];
  for (std::int64_t at = 0; at < transitions(c); ++at) {
    const auto d = part(c.call.inputs[0], at, K), a = part(c.call.inputs[1], at, K), b = part(c.call.inputs[2], at, K);
    const Eigen::MatrixXd A = Eigen::MatrixXd(vector(d).asDiagonal()) - vector(a) * vector(b).transpose();
    const TransitionBounds bounds = dplr_transition_bounds(d, a, b);
    if (Finding finding = encloses(A, bounds, at); is_failure(finding.verdict)) return finding;
    const double triangle =
        (vector(d).cwiseAbs().maxCoeff() + vector(a).norm() * vector(b).norm()) * (1 + 0x1p-30); // K fp64 roundings, with room
    if (!(bounds.norm <= triangle))
      return broken("d",
                    fmt::format("token and head {}: a bound of {:.17g}, the triangle inequality gives {:.17g}", at, bounds.norm, triangle));
  }
  return {};
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

/// What the monitor proves of a case's transitions, and where the heuristic warns beside it.
std::vector<ModuleFigure> monitor_figures(std::string_view regime, std::uint64_t seed) {
  const ModuleCase c = draw_kda(regime, seed);
  const StateShape s = shape_of(regime);
  SpectralMonitor monitor(s, c.call.rows());
  for (std::int64_t row = 0; row < c.call.rows(); ++row)
    monitor.observe({.alpha = part(c.call.inputs[0], row, s.H * s.K),
                     .k = part(c.call.inputs[1], row, s.H * s.K),
                     .beta = part(c.call.inputs[2], row, s.H),
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
                    .regimes = kda_regimes(),
                    .laws = token_laws(),
                    .faults = faults_of("DPLRTransition"),
                    .draw = draw_kda,
                    .figures = monitor_figures};
  suite.laws.push_back({"a-batch-is-its-heads", "a batch at once and head by head give the same bits; a transition is an update with v = 0",
                        false, kda_batch_is_its_heads});
  suite.laws.push_back(
      {"monitor-bounds-the-norm", "the monitor's bounds enclose the largest singular value", false, monitor_bounds_the_norm});
  suite.laws.push_back({"monitor-bounds-the-radius",
                        "no eigenvalue is larger than the monitor's bound, which is no larger than that of the norm", false,
                        monitor_bounds_the_radius});
  suite.laws.push_back({"monitor-watches-a-window", "the bound of a window holds for its product; counts are those of its tokens", false,
                        monitor_watches_a_window});
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
  suite.laws.push_back(
      {"monitor-bounds-the-norm", "the monitor's bound encloses the largest singular value", false, monitor_bounds_the_general_norm});
  return suite;
}

} // namespace kdacheck
