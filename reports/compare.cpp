#include "compare.hpp"

#include "words.hpp"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

namespace kdacheck {
namespace {

constexpr double rarest_chance = 1e-3;
constexpr double least_growth = 1.1;
constexpr std::size_t changes_shown = 40;

bool lost(Verdict before, Verdict after) {
  return before == Verdict::passed && (after == Verdict::inconclusive || after == Verdict::not_supported);
}

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

bool has_kernel(const Results& results, const std::string& kernel) {
  return std::ranges::find(results.kernels, kernel, &KernelTally::name) != results.kernels.end();
}

} // namespace

Comparison compare(const Results& before, const Results& after) {
  Comparison comparison;
  comparison.same_cases = before.context.tier == after.context.tier && before.context.seed == after.context.seed;
  for (const KernelTally& kernel : before.kernels)
    if (!has_kernel(after, kernel.name)) comparison.kernels_gone.push_back(kernel.name);
  for (const KernelTally& kernel : after.kernels)
    if (!has_kernel(before, kernel.name)) comparison.kernels_new.push_back(kernel.name);
  std::map<std::string, std::vector<double>> ratios;
  for (const auto& [key, old_tally] : before.groups) {
    const auto found = after.groups.find(key);
    if (found == after.groups.end()) {
      ++comparison.groups_gone;
      continue;
    }
    ++comparison.groups;
    const Tally& new_tally = found->second;
    const Verdict was = old_tally.verdict(), is = new_tally.verdict();
    if (was != is) {
      const bool worse = lost(was, is) || (is_failure(is) && is_graver(new_tally.worst->finding, old_tally.worst->finding));
      comparison.verdicts.push_back({key, was, is, worse});
    }
    if (was != Verdict::passed || is != Verdict::passed) continue;
    const double ratio = new_tally.worst->finding.bound_util / old_tally.worst->finding.bound_util;
    if (std::isfinite(ratio) && ratio > 0) ratios[key.kernel].push_back(ratio);
  }
  comparison.groups_new = after.groups.size() - comparison.groups;
  for (const KernelTally& kernel : after.kernels)
    if (has_kernel(before, kernel.name)) comparison.errors.push_back(error_change(kernel.name, ratios[kernel.name]));
  std::ranges::stable_partition(comparison.verdicts, &VerdictChange::worse);
  return comparison;
}

bool got_worse(const Comparison& comparison) {
  return std::ranges::any_of(comparison.verdicts, &VerdictChange::worse) || std::ranges::any_of(comparison.errors, &ErrorChange::worse);
}

int exit_status(const Comparison& comparison) { return comparison.groups == 0 ? 5 : got_worse(comparison) ? 1 : 0; }

std::string to_text(const Comparison& comparison) {
  std::string text;
  if (!comparison.same_cases) text += "tier or seed differ: the runs drew different cases\n\n";
  for (std::size_t i = 0; i < std::min(comparison.verdicts.size(), changes_shown); ++i) {
    const VerdictChange& change = comparison.verdicts[i];
    text += fmt::format("{}  {}  {}  [{}]: {} -> {}\n", change.worse ? "WORSE " : "change", change.key.kernel, change.key.property,
                        change.key.regime, spoken(change.before), spoken(change.after));
  }
  if (comparison.verdicts.size() > changes_shown)
    text += fmt::format("and {} more verdicts changed\n", comparison.verdicts.size() - changes_shown);
  if (!comparison.verdicts.empty()) text += "\n";
  std::size_t width = 6;
  for (const ErrorChange& change : comparison.errors) width = std::max(width, change.kernel.size());
  text += fmt::format("{:<{}}  {:>6}  {:>6}  {:>6}  {:>24}  {}\n", "kernel", width, "groups", "grown", "shrunk", "error ratio (quartiles)",
                      "chance");
  for (const ErrorChange& change : comparison.errors)
    text += fmt::format("{:<{}}  {:>6}  {:>6}  {:>6}  {:>24}  {:.2g}{}\n", change.kernel, width, change.groups, change.grown, change.shrunk,
                        fmt::format("{:.3f} ({:.3f} .. {:.3f})", change.median, change.lower_quartile, change.upper_quartile),
                        change.chance, change.worse ? "  WORSE" : "");
  for (const std::string& kernel : comparison.kernels_gone) text += "only in the first: " + kernel + "\n";
  for (const std::string& kernel : comparison.kernels_new) text += "only in the second: " + kernel + "\n";
  const auto worse = std::ranges::count_if(comparison.verdicts, &VerdictChange::worse);
  const auto grown = std::ranges::count_if(comparison.errors, &ErrorChange::worse);
  text += fmt::format("\n{} kernel x property x regime in both, {} only in the first, {} only in the second\n", comparison.groups,
                      comparison.groups_gone, comparison.groups_new);
  if (comparison.groups == 0) return text + "NOTHING TO COMPARE\n";
  if (worse + grown == 0) return text + fmt::format("no worse ({} verdicts changed)\n", comparison.verdicts.size());
  return text + fmt::format("WORSE: {} verdicts, {} kernels with larger errors\n", worse, grown);
}

} // namespace kdacheck
