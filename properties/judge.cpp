#include "judge.hpp"

#include "compare.hpp"
#include "confidence.hpp"
#include "content_cache.hpp"
#include "perturbed/lanes.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <limits>
#include <string>

namespace kdacheck {
namespace {

constexpr std::size_t truth_memory = std::size_t{256} << 20, budget_memory = std::size_t{64} << 20;

std::size_t bytes_of(const Truth& truth) {
  std::size_t numbers = 0;
  const auto add = [&](const Enclosed& e) { numbers += e.value.size() + e.low.size() + e.radius.size(); };
  add(truth.o);
  add(truth.final_state);
  for (const Enclosed& e : truth.gradient) add(e);
  return numbers * sizeof(double) + sizeof(Truth);
}

std::size_t bytes_of(const Budget& budget) {
  const OutputBudget& o = budget.output;
  std::size_t numbers = 2 * (o.token.size() + o.channel.size() + o.state_row.size() + o.state_column.size());
  for (const GradientBudget& g : budget.gradient) numbers += 2 * (g.fine.size() + g.channel.size());
  numbers += budget.proved.token.size() + budget.proved.state_row.size();
  for (const std::vector<double>& gradient : budget.proved.gradient) numbers += gradient.size();
  return numbers * sizeof(double) + sizeof(Budget);
}

std::size_t elements(const std::array<std::int64_t, 4>& shape) {
  return static_cast<std::size_t>(shape[0] * shape[1] * shape[2] * shape[3]);
}

Finding broken(std::string sentence, std::string tensor = {}) {
  Finding finding;
  finding.verdict = Verdict::failed_property;
  finding.bound_util = std::numeric_limits<double>::infinity();
  if (!tensor.empty()) finding.place = Place{.tensor = std::move(tensor)};
  finding.detail = std::move(sentence);
  return finding;
}

/// Why a run cannot be compared at all, or nothing.
std::optional<Finding> not_comparable(const Problem& problem, const Run& run) {
  if (run.refused) return broken("refused a case inside its declared domain: " + *run.refused);
  const std::int64_t N = sequence_count(problem);
  const auto check = [](std::string name, std::size_t has, std::size_t due) -> std::optional<Finding> {
    if (has == due) return std::nullopt;
    return broken(name + " has " + std::to_string(has) + " elements where " + std::to_string(due) + " are due", name);
  };
  if (auto wrong = check("o", run.o.size(), elements(shape_of(Output::o, problem.shape, N)))) return wrong;
  if (run.final_state.empty()) return std::nullopt;
  return check("final_state", run.final_state.size(), elements(shape_of(Output::final_state, problem.shape, N)));
}

/// The same for a backward pass; gradients that the run has not are left out of the comparison, but one must be there.
std::optional<Finding> gradients_not_comparable(const Problem& problem, const Run& run) {
  if (run.refused) return broken("refused a case inside its declared domain: " + *run.refused);
  bool any = false;
  for (Input input : all_inputs) {
    const std::vector<float>& gradient = run.gradient[static_cast<std::size_t>(input)];
    if (problem[input].empty() || gradient.empty()) continue;
    any = true;
    const std::string label = "d" + std::string(name(input));
    if (gradient.size() != problem[input].size())
      return broken(label + " has " + std::to_string(gradient.size()) + " elements where " + std::to_string(problem[input].size()) +
                        " are due",
                    label);
  }
  if (!any && problem.shape.T > 0) return broken("wrote no gradient");
  return std::nullopt;
}

std::string figure(double x) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", x);
  return text;
}

/// Names the arithmetic of a truth that took more than fp64.
std::string escalated(const Truth& truth) {
  if (truth.arithmetic == Arithmetic::fp64) return {};
  return truth.arithmetic == Arithmetic::double_double ? std::string(name(truth.arithmetic)) : std::to_string(truth.bits) + " bits";
}

Finding finding_of(const Comparison& c, const Truth& truth, Verdict verdict) {
  Finding finding;
  finding.oracle = escalated(truth);
  finding.verdict = verdict;
  finding.bound_util = std::max(c.screening, c.proved > 1 ? c.proved : 0.0);
  finding.metrics = c.metrics;
  if (!c.group.empty() && (verdict != Verdict::passed || c.screening > 0)) finding.place = c.place;
  const std::string where = "the " + c.group + "'s error " + figure(c.error) + " against a bound of " + figure(c.bound);
  switch (verdict) {
  case Verdict::passed: break;
  case Verdict::failed_proved:
    finding.detail =
        c.non_finite ? "a result is not finite where the truth and its bound are" : where + ", beyond what the contract can explain";
    if (c.non_finite) finding.bound_util = std::numeric_limits<double>::infinity();
    break;
  case Verdict::failed_statistical: finding.detail = where + ", confirmed with fresh noise"; break;
  default:
    finding.detail = c.screening <= 1 && c.overflow ? "a number of the contract's own formats overflows: nothing bounds the error" : where;
    break;
  }
  return finding;
}

} // namespace

struct Judge::Cache {
  Screening screening = Screening::quick;
  ContentCache<Truth> forward{truth_memory}, gradient{truth_memory};
  ContentCache<Budget> budget{budget_memory};

  /// The most precise truth known so far of a problem.
  std::shared_ptr<const Truth> truth(const Problem& problem, const ContentHash& key, bool backward) {
    auto& cache = backward ? gradient : forward;
    if (auto found = cache.find(key)) return found;
    return remember(key, backward, backward ? kdacheck::gradient_truth(problem) : kdacheck::forward_truth(problem));
  }

  /// The next more precise one, or nothing if there is none.
  std::shared_ptr<const Truth> escalate(const Problem& problem, const ContentHash& key, bool backward, const Truth& from) {
    const auto next = more_precise(from);
    if (!next) return nullptr;
    const auto [arithmetic, bits] = *next;
    return remember(key, backward,
                    backward ? kdacheck::gradient_truth(problem, arithmetic, bits) : kdacheck::forward_truth(problem, arithmetic, bits));
  }

  std::shared_ptr<const Truth> remember(const ContentHash& key, bool backward, Truth truth) {
    auto shared = std::make_shared<const Truth>(std::move(truth));
    return (backward ? gradient : forward).keep(key, shared, bytes_of(*shared));
  }

  /// Deterministic in problem, contract and draws: the noise follows from the content hash.
  std::shared_ptr<const Budget> budget_of(const Contract& contract, const Problem& problem, const ContentHash& key, const Truth& truth,
                                          int draws, bool backward, Submodels submodels) {
    const ContentHash noise = combine(combine(key, error_hash(contract)), static_cast<std::uint64_t>(2 * draws + (backward ? 1 : 0)));
    const ContentHash full = submodels == Submodels::all ? noise : combine(noise, submodels == Submodels::first ? 1 : 2);
    if (auto found = budget.find(full)) return found;
    auto made =
        std::make_shared<const Budget>(backward ? kdacheck::gradient_budget(contract, problem, truth, noise.first, draws, submodels)
                                                : kdacheck::forward_budget(contract, problem, truth, noise.first, draws, submodels));
    return budget.keep(full, made, bytes_of(*made));
  }

  template <class Compare> Finding judge(const Contract& contract, const Problem& problem, bool backward, Compare&& compare) {
    const ContentHash key = content_hash(problem);
    auto exact = truth(problem, key, backward);
    const auto measure = [&](int draws, Submodels submodels = Submodels::all) {
      auto allowed = budget_of(contract, problem, key, *exact, draws, backward, submodels);
      Comparison c = compare(*exact, *allowed);
      while (takes_all(submodels) && !(c.radius_share <= precise_enough)) {
        auto finer = escalate(problem, key, backward, *exact);
        if (!finer) break;
        exact = finer;
        c = compare(*exact, *allowed);
      }
      return c;
    };
    // What one submodel allows, all of them allow: most kernels pass within it, and only a pass is taken from it.
    if (screening == Screening::quick)
      if (const Comparison c = measure(screening_draws, Submodels::first);
          !c.non_finite && !c.overflow && c.proved <= 1 && c.radius_share <= precise_enough && c.screening <= 1)
        return finding_of(c, *exact, Verdict::passed);
    Comparison c = measure(screening_draws);
    const auto settled = [&]() -> std::optional<Verdict> {
      if (c.non_finite || c.proved > 1) return Verdict::failed_proved;
      if (!(c.radius_share <= precise_enough)) return Verdict::inconclusive;
      if (c.screening > 1) return std::nullopt;
      if (!c.overflow) return Verdict::passed;
      // Where a format of the contract overflows it excuses any error. A kernel that keeps its numbers in range, scaled by powers of two,
      // need not be excused: one that errs no more than if the format held all numbers is right. One that errs more is not known to be
      // wrong.
      const Comparison in_range = measure(screening_draws, Submodels::all_in_range);
      if (in_range.non_finite || in_range.overflow || !(in_range.radius_share <= precise_enough) || !(in_range.screening <= 1))
        return Verdict::inconclusive;
      c = in_range;
      return Verdict::passed;
    };
    auto verdict = settled();
    for (int draws : confirming_draws) {
      if (verdict) break;
      c = measure(draws);
      verdict = settled();
      if (!verdict && c.deciding > 1) verdict = Verdict::failed_statistical;
    }
    return finding_of(c, *exact, verdict.value_or(Verdict::inconclusive));
  }
};

Judge::Judge(Screening screening) : cache_(std::make_unique<Cache>()) { cache_->screening = screening; }
Judge::~Judge() = default;

Finding Judge::backward(const Contract& contract, const Problem& problem, const Run& run) {
  if (auto wrong = gradients_not_comparable(problem, run)) return *wrong;
  return cache_->judge(contract, problem, true,
                       [&](const Truth& truth, const Budget& budget) { return compare_backward(contract, problem, truth, budget, run); });
}

Finding Judge::forward(const Contract& contract, const Problem& problem, const Run& run) {
  if (auto wrong = not_comparable(problem, run)) return *wrong;
  return cache_->judge(contract, problem, false,
                       [&](const Truth& truth, const Budget& budget) { return compare_forward(contract, problem, truth, budget, run); });
}

std::shared_ptr<const Truth> Judge::forward_truth(const Problem& problem) { return cache_->truth(problem, content_hash(problem), false); }

std::shared_ptr<const Truth> Judge::gradient_truth(const Problem& problem) { return cache_->truth(problem, content_hash(problem), true); }

std::shared_ptr<const Budget> Judge::forward_budget(const Contract& contract, const Problem& problem, int draws) {
  const ContentHash key = content_hash(problem);
  return cache_->budget_of(contract, problem, key, *cache_->truth(problem, key, false), draws, false, Submodels::all);
}

std::shared_ptr<const Budget> Judge::gradient_budget(const Contract& contract, const Problem& problem, int draws) {
  const ContentHash key = content_hash(problem);
  return cache_->budget_of(contract, problem, key, *cache_->truth(problem, key, true), draws, true, Submodels::all);
}

} // namespace kdacheck
