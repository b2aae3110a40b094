// Which planted fault reproduces an error best? The errors of the kernel and of every fault, on the same problem and under
// the same contract, are compared element by element in units of the spread that the contract allows, compressed as
// sign(x) log(1 + |x|): what is within the spread counts for nothing, and a fault that is right in kind but not in size
// stays near. NaN and infinity count as an error of 1e30 spreads.

#include "../experiments.hpp"
#include "../transform.hpp"
#include "localise.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace kdacheck {
namespace {

constexpr double farthest = 1e30;

/// Steps of the planted kernel's loops beyond which the fit would take seconds.
constexpr double most_work = 3e6;

double work_of(const Contract& contract, const Problem& problem) {
  const auto& [B, T, H, HV, K, V] = problem.shape;
  const auto C = static_cast<double>(std::min(contract.chunk, std::max<std::int64_t>(T, 1)));
  return static_cast<double>(B * T * HV) * (C * static_cast<double>(K + V) + 3.0 * static_cast<double>(K * V));
}

/// Value channels are independent of each other, forward: evenly spaced ones, the last among them, so many that the fit is quick.
std::optional<Choice> with_fewer_channels(const Contract& contract, const Problem& problem) {
  Choice choice = everything(problem);
  for (std::int64_t few = problem.shape.V / 2; few >= 4; few /= 2) {
    Problem narrow;
    narrow.shape = problem.shape;
    narrow.shape.V = few;
    if (work_of(contract, narrow) > most_work / 4) continue;
    choice.value_channels.clear();
    for (std::int64_t i = 1; i <= few; ++i) choice.value_channels.push_back(i * problem.shape.V / few - 1);
    return choice;
  }
  return std::nullopt;
}

double compressed(double error, double spread) {
  const double x = error / std::max(spread, 1e-38);
  const double size = std::isfinite(x) ? std::min(std::abs(x), farthest) : farthest;
  return std::copysign(std::log1p(size), std::isnan(x) ? 1.0 : x);
}

/// Errors of every element of a run; a tensor that the run has not counts as exact.
struct Pattern {
  std::vector<double> error;
  /// Share of the norm that non-finite numbers have: they tell where, but not what.
  double not_finite() const {
    double sum = 0;
    for (double x : error)
      if (std::abs(x) >= std::log1p(farthest)) sum += x * x;
    return norm() > 0 ? std::sqrt(sum) / norm() : 0;
  }
  double norm() const {
    double sum = 0;
    for (double x : error) sum += x * x;
    return std::sqrt(sum);
  }
};

/// 0: the same pattern; 1: nothing in common, or one of them has no error.
double distance(const Pattern& one, const Pattern& other) {
  double sum = 0;
  for (std::size_t i = 0; i < one.error.size(); ++i) sum += (one.error[i] - other.error[i]) * (one.error[i] - other.error[i]);
  const double size = std::max(one.norm(), other.norm());
  return size > 0 ? std::min(1.0, std::sqrt(sum) / size) : 1.0;
}

struct Yardstick {
  const Problem& problem;
  const Truth& truth;
  const Budget& budget;
  bool backward;
  double sharper = 1;

  void add(Pattern& pattern, const std::vector<float>& written, const Enclosed& exact, const std::vector<double>& spread) const {
    for (std::size_t i = 0; i < exact.value.size(); ++i) {
      const double group = spread.empty() ? 0 : spread[i * spread.size() / exact.value.size()];
      pattern.error.push_back(written.size() == exact.value.size() && std::isfinite(group)
                                  ? compressed(static_cast<double>(written[i]) - exact.value[i], group / sharper + exact.radius[i])
                                  : 0.0);
    }
  }

  Pattern pattern_of(const Run& run) const {
    Pattern pattern;
    if (!backward) {
      add(pattern, run.o, truth.o, budget.output.token);
      add(pattern, run.final_state, truth.final_state, budget.output.state_row);
    }
    for (Input input : all_inputs)
      if (backward)
        add(pattern, run.gradient[static_cast<std::size_t>(input)], truth[input], budget.gradient[static_cast<std::size_t>(input)].fine);
    return pattern;
  }
};

} // namespace

StageOpinion stage_by_faults(const Kernel& kernel, Direction direction, const Problem& problem, const Run& run, Judge& judge,
                             Fault left_out, double sharper) {
  const Contract& contract = kernel.contract;
  if (problem.options.rule != Rule::kda) return unclear("no faults of the general form are planted");
  if (work_of(contract, problem) > most_work) {
    if (direction == Direction::forward)
      if (const auto part = with_fewer_channels(contract, problem))
        return stage_by_faults(kernel, direction, chosen(problem, *part), chosen(run, problem, *part), judge, left_out, sharper);
    StageOpinion opinion = unclear("the case is too large to run every planted fault on it");
    opinion.fitted = false;
    return opinion;
  }
  const bool backward = direction == Direction::backward;
  const auto truth = backward ? judge.gradient_truth(problem) : judge.forward_truth(problem);
  constexpr int draws = 8;
  const Budget budget = backward ? gradient_budget(contract, problem, *truth, 1, draws) : *judge.forward_budget(contract, problem);
  const Yardstick yardstick{problem, *truth, budget, backward, sharper};
  const Pattern seen = yardstick.pattern_of(run);

  if (seen.not_finite() > 0.9) return unclear("what was written is hardly finite");

  struct Fit {
    std::string_view fault;
    double distance = std::numeric_limits<double>::infinity();
  };
  std::array<Fit, all_stages.size()> best;
  Contract of_any_size = contract; // planted kernels take every size, fewer channels than the kernel too
  of_any_size.K = of_any_size.V = of_any_size.T = SizeRange{};
  const std::string text = to_text(of_any_size);
  for (const FaultInfo& info : planted_faults()) {
    if (info.fault == left_out || info.backward != backward) continue;
    const auto stage = stage_of(info.fault);
    if (!stage) continue;
    FaultInfo under = info;
    under.contract = text;
    const Kernel faulty = faulty_kernel(under);
    Run other = backward ? run_backward(faulty, problem) : run_forward(faulty, problem);
    if (other.refused) continue;
    if (sharper > 1) other = without_last_rounding(contract, *truth, std::move(other));
    for (std::size_t i = 0; i < run.gradient.size(); ++i) // what is not seen of the kernel is no difference
      if (run.gradient[i].empty()) other.gradient[i].clear();
    const double far = distance(seen, yardstick.pattern_of(other));
    Fit& fit = best[static_cast<std::size_t>(*stage)];
    if (far < fit.distance) fit = {info.name, far};
  }
  std::array<std::size_t, all_stages.size()> order;
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::ranges::stable_sort(order, {}, [&](std::size_t i) { return best[i].distance; });
  const Fit &nearest = best[order[0]], &second = best[order[1]];
  // Half of the error unexplained is no explanation; nor is one that another stage's fault gives nearly as well. Both
  // figures are choices, not derived; what they achieve is measured by tests/localise.cpp.
  constexpr double unexplained = 0.6, clearly_nearer = 0.85;
  const std::string grounds =
      fmt::format("nearest {} at {:.2f}, of another stage {} at {:.2f}", nearest.fault, nearest.distance, second.fault, second.distance);
  if (!(nearest.distance < unexplained)) return unclear(grounds);
  if (!(nearest.distance < clearly_nearer * second.distance)) return unclear(grounds);
  return says(static_cast<Stage>(order[0]), (1 - nearest.distance) * std::min(1.0, (second.distance - nearest.distance) / second.distance),
              grounds);
}

} // namespace kdacheck
