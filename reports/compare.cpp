#include "compare.hpp"

#include "../properties/confidence.hpp"
#include "words.hpp"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <optional>
#include <set>

namespace kdacheck {
namespace {

constexpr double rarest_chance = 1e-3;
constexpr double least_growth = 1.1;
constexpr std::size_t changes_shown = 40, missing_shown = 10;
/// Kernels that do the same sums in another order move each other's figures by 0.12 to 0.28 on average (mean |ln ratio| of those that
/// shrank: cpu.chunk16.fp32, chunk32, chunk64 and chunk64.wy, and the two of bf16, on the recipes that `verify --seed 1` and 2 judged with
/// both, pair by pair). So far any change of a program may move a figure: less scatter is not believed where few moved.
constexpr double least_scatter = 0.2;

/// P(X >= k) for X ~ Binomial(n, 1/2).
double upper_tail(std::size_t n, std::size_t k) {
  double sum = 0;
  const auto size = static_cast<double>(n);
  for (std::size_t i = k; i <= n; ++i) {
    const auto count = static_cast<double>(i);
    sum += std::exp(std::lgamma(size + 1) - std::lgamma(count + 1) - std::lgamma(size - count + 1) - size * std::log(2.0));
  }
  return std::min(sum, 1.0);
}

double quantile(const std::vector<double>& sorted, double share) {
  const double position = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(position);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (position - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

ErrorChange error_change(const std::string& kernel, std::vector<double> ratios) {
  ErrorChange change{.kernel = kernel, .groups = ratios.size()};
  if (ratios.empty()) return change;
  std::ranges::sort(ratios);
  change.grown = static_cast<std::size_t>(std::ranges::count_if(ratios, [](double ratio) { return ratio > 1; }));
  change.shrunk = static_cast<std::size_t>(std::ranges::count_if(ratios, [](double ratio) { return ratio < 1; }));
  change.lower_quartile = quantile(ratios, 0.25);
  change.median = quantile(ratios, 0.5);
  change.upper_quartile = quantile(ratios, 0.75);
  change.chance = upper_tail(change.grown + change.shrunk, change.grown);
  change.worse = change.chance < rarest_chance && change.median >= least_growth;
  return change;
}

/// An error is known to a hundredth of its bound at worst (the oracle's radius): what is smaller counts as that much.
double told_apart(double bound_util) { return std::max(bound_util, precise_enough); }

struct Moved {
  GroupKey key;
  double before, after, growth; ///< growth: ln of the ratio
};

/// Whose growth the kernel's other figures do not explain. If nothing but chance moved them, growing and shrinking are alike, so those that
/// shrank show how far chance goes, whatever made others grow. |ln ratio| has about an exponential tail (of the pairs that least_scatter
/// is from, 0.6 to 7 in a hundred lie beyond three times its mean m, where exp(-3) = 5 in a hundred): P(growth > x) = exp(-x / m) / 2, and
/// of n figures that moved the largest reaches x with at most n times that chance. In those pairs the largest growth was 1.7 to 3.7 times,
/// where 9.5 to 22 are asked for.
std::vector<GroupGrowth> growths_of(const std::vector<Moved>& moved) {
  double sum = 0;
  std::size_t shrunk = 0;
  for (const Moved& each : moved)
    if (each.growth < 0) sum -= each.growth, ++shrunk;
  const double measured = shrunk ? sum / static_cast<double>(shrunk) : 0, scatter = std::max(measured, least_scatter);
  if (measured < least_scatter) shrunk = 0; // too little to tell how far chance goes
  std::vector<GroupGrowth> growths;
  for (const Moved& each : moved) {
    const double chance = std::min(1.0, static_cast<double>(moved.size()) * std::exp(-each.growth / scatter) / 2);
    if (!(chance >= rarest_chance)) growths.push_back({each.key, each.before, each.after, std::exp(scatter), shrunk, chance});
  }
  return growths;
}

std::size_t judged(const Tally& tally) { return tally.counts.cases() - tally.counts[Verdict::not_supported]; }

/// A kernel that was judged in some case.
bool judges(const Results& results, const std::string& kernel) {
  const auto found = std::ranges::find(results.kernels, kernel, &KernelTally::name);
  return found != results.kernels.end() && judged(found->tally) > 0;
}

/// "a, b and 3 more"
template <class Range, class Name> std::string some_of(const Range& range, Name name) {
  std::string text;
  for (std::size_t i = 0; i < std::min(range.size(), missing_shown); ++i) text += (i ? ", " : "") + name(range[i]);
  return text + (range.size() > missing_shown ? fmt::format(" and {} more", range.size() - missing_shown) : "");
}

/// A group that passed and does no more without having failed. Other draws of a regime may be outside a kernel's domain (a single token
/// cannot be split); if so, coverage is lost only where the kernel was judged by that law on no draw at all.
bool lost(const Tally& before, const Tally& after, bool law_still_judged) {
  if (before.verdict() != Verdict::passed) return false;
  return after.verdict() == Verdict::inconclusive ||
         (after.verdict() == Verdict::not_supported && (before.drawn == after.drawn || !law_still_judged));
}

std::string name_of(const GroupKey& key) { return key.kernel + "  " + key.property + "  [" + key.regime + "]"; }

/// What was judged and is no more.
std::string text_of_missing(const Comparison& comparison) {
  std::string text;
  const char* worse = comparison.both_stopped() ? "not compared: " : "WORSE   ";
  if (comparison.both_stopped())
    text += "both runs were stopped early: what one of them did not reach is not compared\n";
  else if (comparison.second_stopped)
    text += "WORSE   the second run was stopped early: what it did not reach is not judged\n";
  else if (comparison.first_stopped)
    text += "the first run was stopped early: what it did not reach is not compared\n";
  for (const std::string& kernel : comparison.kernels_gone) text += worse + ("judged only in the first: " + kernel) + "\n";
  if (!comparison.groups_gone.empty())
    text += fmt::format("{}{} kernel x property x regime only in the first: {}\n", worse, comparison.groups_gone.size(),
                        some_of(comparison.groups_gone, name_of));
  const auto thinner = [&](const std::vector<ThinnerGroup>& groups, const char* what, const char* mark) {
    const auto name = [](const ThinnerGroup& group) { return fmt::format("{} {} -> {}", name_of(group.key), group.before, group.after); };
    if (!groups.empty()) text += fmt::format("{}{} {} in fewer cases: {}\n", mark, groups.size(), what, some_of(groups, name));
  };
  thinner(comparison.thinner, "judged", worse), thinner(comparison.fewer_passed, "passed", "WORSE   ");
  for (const std::string& kernel : comparison.kernels_new) text += "judged only in the second: " + kernel + "\n";
  return text;
}

/// The second run under the name of the first's kernel, if each judged one and they are not called the same.
std::optional<Results> as_the_only_kernel_of(const Results& before, const Results& after) {
  if (before.kernels.size() != 1 || after.kernels.size() != 1 || before.kernels.front().name == after.kernels.front().name)
    return std::nullopt;
  Results renamed = after;
  const std::string& name = renamed.kernels.front().name = before.kernels.front().name;
  renamed.groups.clear();
  for (const auto& [key, tally] : after.groups) renamed.groups[{name, key.property, key.regime}] = tally;
  return renamed;
}

std::string text_of(const GroupGrowth& growth) {
  if (!std::isfinite(growth.after))
    return fmt::format("WORSE   {}: error / bound {:.3g} -> no number\n", name_of(growth.key), growth.before);
  const std::string noise =
      growth.shrunk
          ? fmt::format("the {} of the kernel's figures that shrank did so {:.2g} times in the geometric mean", growth.shrunk, growth.noise)
          : fmt::format("too few of the kernel's figures shrank, or by too little, to tell how far chance goes: {:.2g} times is taken",
                        growth.noise);
  return fmt::format("WORSE   {}: error / bound {:.3g} -> {:.3g}; {}; chance of so much growth at most {:.1g}\n", name_of(growth.key),
                     growth.before, growth.after, noise, growth.chance);
}

} // namespace

Comparison compare(const Results& before, const Results& after) {
  if (const auto renamed = as_the_only_kernel_of(before, after)) {
    Comparison comparison = compare(before, *renamed);
    comparison.stands_for = after.kernels.front().name;
    comparison.groups_gone.clear();
    comparison.thinner.clear();
    comparison.fewer_passed.clear();
    return comparison;
  }
  Comparison comparison;
  comparison.same_cases = before.context.tier == after.context.tier && before.context.seed == after.context.seed;
  comparison.first_stopped = before.outcome.stopped;
  comparison.second_stopped = after.outcome.stopped;
  for (const KernelTally& kernel : before.kernels)
    if (judges(before, kernel.name) && !judges(after, kernel.name)) comparison.kernels_gone.push_back(kernel.name);
  for (const KernelTally& kernel : after.kernels)
    if (judges(after, kernel.name) && !judges(before, kernel.name)) comparison.kernels_new.push_back(kernel.name);
  std::set<std::pair<std::string, std::string>> laws_judged; // kernel and law, by the second
  for (const auto& [key, tally] : after.groups)
    if (judged(tally) > 0) laws_judged.emplace(key.kernel, key.property);
  std::map<std::string, std::vector<double>> ratios;
  std::map<std::string, std::vector<Moved>> moved;
  for (const auto& [key, old_tally] : before.groups) {
    const auto found = after.groups.find(key);
    if (found == after.groups.end()) {
      ++comparison.groups_only_in_first;
      if (judged(old_tally) > 0 && judges(after, key.kernel)) comparison.groups_gone.push_back(key);
      continue;
    }
    ++comparison.groups;
    const Tally& new_tally = found->second;
    const Verdict was = old_tally.verdict(), is = new_tally.verdict();
    const bool other_cases = comparison.both_stopped() && old_tally.drawn != new_tally.drawn; // one got further than the other
    const bool worse = was != is && ((!other_cases && lost(old_tally, new_tally, laws_judged.contains({key.kernel, key.property}))) ||
                                     (is_failure(is) && is_graver(new_tally.worst->finding, old_tally.worst->finding)));
    if (was != is) comparison.verdicts.push_back({key, was, is, worse});
    if (comparison.same_cases && !worse && judged(new_tally) > 0) {
      const std::size_t passed_before = old_tally.counts[Verdict::passed], passed_now = new_tally.counts[Verdict::passed];
      if (judged(new_tally) < judged(old_tally))
        comparison.thinner.push_back({key, judged(old_tally), judged(new_tally)});
      else if (passed_now < passed_before)
        comparison.fewer_passed.push_back({key, passed_before, passed_now});
    }
    if (was != is || !new_tally.worst || !old_tally.worst) continue;
    const double x = old_tally.worst->finding.bound_util, y = new_tally.worst->finding.bound_util;
    if (!is_failure(is) && std::isfinite(x) && !std::isfinite(y)) comparison.growths.push_back({key, x, y, 1, 0, 0});
    if (was != Verdict::passed || other_cases) continue;
    const double ratio = y / x;
    if (std::isfinite(ratio) && ratio > 0) ratios[key.kernel].push_back(ratio);
    if (const double growth = std::log(told_apart(y) / told_apart(x));
        old_tally.drawn == new_tally.drawn && std::isfinite(growth) && growth != 0)
      moved[key.kernel].push_back({key, x, y, growth});
  }
  for (const auto& [kernel, figures] : moved)
    for (GroupGrowth& growth : growths_of(figures)) comparison.growths.push_back(std::move(growth));
  std::ranges::stable_sort(comparison.growths, {}, &GroupGrowth::chance);
  comparison.groups_only_in_second = after.groups.size() - comparison.groups;
  for (const KernelTally& kernel : after.kernels)
    if (judges(before, kernel.name)) comparison.errors.push_back(error_change(kernel.name, ratios[kernel.name]));
  std::ranges::stable_partition(comparison.verdicts, &VerdictChange::worse);
  return comparison;
}

bool got_worse(const Comparison& comparison) {
  return std::ranges::any_of(comparison.verdicts, &VerdictChange::worse) || std::ranges::any_of(comparison.errors, &ErrorChange::worse) ||
         !comparison.growths.empty() || !comparison.fewer_passed.empty() ||
         (!comparison.both_stopped() && (!comparison.thinner.empty() || !comparison.kernels_gone.empty() ||
                                         !comparison.groups_gone.empty() || comparison.second_stopped));
}

int exit_status(const Comparison& comparison) { return comparison.groups == 0 ? 5 : got_worse(comparison) ? 1 : 0; }

std::string to_text(const Comparison& comparison) {
  std::string text;
  if (!comparison.stands_for.empty())
    text += "one kernel each: " + comparison.stands_for + " of the second run is compared with that of the first\n\n";
  if (!comparison.same_cases) text += "tier or seed differ: the runs drew other cases, but for those that every run has\n\n";
  for (std::size_t i = 0; i < std::min(comparison.verdicts.size(), changes_shown); ++i) {
    const VerdictChange& change = comparison.verdicts[i];
    text += fmt::format("{}  {}  {}  [{}]: {} -> {}\n", change.worse ? "WORSE " : "change", change.key.kernel, change.key.property,
                        change.key.regime, spoken(change.before), spoken(change.after));
  }
  if (comparison.verdicts.size() > changes_shown)
    text += fmt::format("and {} more verdicts changed\n", comparison.verdicts.size() - changes_shown);
  for (std::size_t i = 0; i < std::min(comparison.growths.size(), changes_shown); ++i) text += text_of(comparison.growths[i]);
  if (comparison.growths.size() > changes_shown)
    text += fmt::format("and {} more figures grew beyond chance or are no number\n", comparison.growths.size() - changes_shown);
  if (!comparison.verdicts.empty() || !comparison.growths.empty()) text += "\n";
  std::size_t width = 6;
  for (const ErrorChange& change : comparison.errors) width = std::max(width, change.kernel.size());
  text += fmt::format("{:<{}}  {:>6}  {:>6}  {:>6}  {:>24}  {}\n", "kernel", width, "groups", "grown", "shrunk", "error ratio (quartiles)",
                      "chance");
  for (const ErrorChange& change : comparison.errors)
    text += fmt::format("{:<{}}  {:>6}  {:>6}  {:>6}  {:>24}  {:.2g}{}\n", change.kernel, width, change.groups, change.grown, change.shrunk,
                        fmt::format("{:.3f} ({:.3f} .. {:.3f})", change.median, change.lower_quartile, change.upper_quartile),
                        change.chance, change.worse ? "  WORSE" : "");
  text += text_of_missing(comparison);
  const auto worse = std::ranges::count_if(comparison.verdicts, &VerdictChange::worse);
  const auto grown = std::ranges::count_if(comparison.errors, &ErrorChange::worse);
  text += fmt::format("\n{} kernel x property x regime in both, {} only in the first, {} only in the second\n", comparison.groups,
                      comparison.groups_only_in_first, comparison.groups_only_in_second);
  if (comparison.groups == 0) return text + "NOTHING TO COMPARE\n";
  if (!got_worse(comparison)) return text + fmt::format("no worse ({} verdicts changed)\n", comparison.verdicts.size());
  text += fmt::format("WORSE: {} verdicts, {} kernels with larger errors", worse, grown);
  const auto also = [&](std::size_t count, const char* what) {
    if (count > 0) text += fmt::format(", {} {}", count, what);
  };
  const auto no_number = std::ranges::count_if(comparison.growths, [](const GroupGrowth& growth) { return !std::isfinite(growth.after); });
  also(comparison.growths.size() - static_cast<std::size_t>(no_number), "errors that grew beyond chance");
  also(static_cast<std::size_t>(no_number), "errors that are no number");
  const bool reached = !comparison.both_stopped();
  also(reached ? comparison.kernels_gone.size() : 0, "kernels not judged any more");
  also(reached ? comparison.groups_gone.size() : 0, "kernel x property x regime not judged any more");
  also(reached ? comparison.thinner.size() : 0, "judged in fewer cases");
  also(comparison.fewer_passed.size(), "passed in fewer cases");
  return text + (comparison.second_stopped && reached ? ", the second run incomplete\n" : "\n");
}

} // namespace kdacheck
