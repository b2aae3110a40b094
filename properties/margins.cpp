#include "margins.hpp"

#include "judge.hpp"
#include "team.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <mutex>

namespace kdacheck {
namespace {

constexpr int draws = 32;            // sigma itself scatters by an eighth
constexpr double small_radius = 0.1; // of a bound: it is taken off the error

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

Comparison compared(const Kernel& kernel, const Problem& problem, bool backward, std::uint64_t noise, Judge& judge) {
  const Run run = backward ? run_backward(kernel, problem) : run_forward(kernel, problem);
  const auto truth = backward ? judge.gradient_truth(problem) : judge.forward_truth(problem);
  const Budget budget = backward ? gradient_budget(kernel.contract, problem, *truth, noise, draws)
                                 : forward_budget(kernel.contract, problem, *truth, noise, draws);
  const auto compare = [&](const Truth& exact) {
    return backward ? compare_backward(kernel.contract, problem, exact, budget, run)
                    : compare_forward(kernel.contract, problem, exact, budget, run);
  };
  const Comparison first = compare(*truth);
  if (first.radius_share <= small_radius) return first;
  const Truth finer = backward ? gradient_truth(problem, Arithmetic::double_double) : forward_truth(problem, Arithmetic::double_double);
  return compare(finer);
}

void add(KernelMargin& sum, const Comparison& c, const std::string& where) {
  ++sum.cases;
  sum.above += c.deciding > 1 || c.proved > 1 || c.non_finite;
  sum.largest_util = std::max(sum.largest_util, c.screening);
  for (std::size_t group = 0; group < all_groups.size(); ++group) {
    Margin& margin = sum.margin[group];
    margin.groups += c.margin[group].groups;
    if (c.margin[group].largest > margin.largest) margin.largest = c.margin[group].largest, sum.where[group] = where;
    if (c.margin[group].quantile_share > margin.quantile_share)
      margin.quantile_share = c.margin[group].quantile_share, margin.quantile = c.margin[group].quantile;
  }
}

std::string line(const char* format, auto... values) {
  char text[512];
  std::snprintf(text, sizeof text, format, values...);
  return text;
}

} // namespace

std::vector<KernelMargin> measured_margins(const MarginsPlan& plan, const std::function<void(const std::string&)>& on_progress) {
  std::vector<KernelMargin> result;
  for (const Kernel* kernel : plan.kernels)
    for (bool backward : {false, true}) {
      KernelMargin& margin = result.emplace_back();
      margin.kernel = kernel->name, margin.contract = to_text(kernel->contract), margin.backward = backward;
      if (!backward || kernel->backward) margin.planned = plan.seeds * static_cast<std::int64_t>(plan.regimes.size());
    }
  const std::size_t of_seed = plan.regimes.size() * plan.kernels.size(), cells = static_cast<std::size_t>(plan.seeds) * of_seed;
  std::size_t done = 0;
  std::mutex reporting;
  Judge judge;
  const double start = now();
  share_out(cells, plan.threads, [&](std::size_t cell) {
    const std::size_t of_regime = cell % plan.regimes.size(), turn = cell % of_seed / plan.regimes.size();
    const Regime& regime = *plan.regimes[of_regime];
    const std::size_t which = (of_regime + turn) % plan.kernels.size();
    const Kernel& kernel = *plan.kernels[which];
    const std::uint64_t seed = plan.first_seed + cell / of_seed;
    const Recipe drawn = regime.draw(seed, plan.tier);
    for (std::size_t i : {2 * which, 2 * which + 1}) {
      const bool backward = result[i].backward;
      if ((backward && !kernel.backward) || now() - start > plan.seconds) continue;
      const Problem problem = make_problem(fitted(drawn, kernel.contract), input_formats(kernel.contract));
      const bool outside = outside_domain(kernel.contract, problem).has_value();
      const double before = now();
      const Comparison c = outside ? Comparison{} : compared(kernel, problem, backward, seed, judge);
      const std::lock_guard lock(reporting);
      result[i].seconds += now() - before;
      if (outside)
        ++result[i].outside;
      else
        add(result[i], c, regime.name + ", seed " + std::to_string(seed));
    }
    const std::lock_guard lock(reporting);
    ++done;
    if (on_progress && (done % 100 == 0 || done == cells)) on_progress(std::to_string(done) + " of " + std::to_string(cells));
  });
  return result;
}

std::string margins_table(const std::vector<KernelMargin>& margins) {
  std::string text = "Factors z derived anew from kernels that are right: error / sigma, the truth's radius taken off\n\n";
  text += line("%-9s %-13s %10s %9s %8s %8s  %16s  %s\n", "direction", "group", "groups", "constant", "seen", "margin", "quantile: share",
               "largest at");
  for (bool backward : {false, true})
    for (Group group : all_groups) {
      const auto at = static_cast<std::size_t>(group);
      Margin all;
      std::string where = "-";
      for (const KernelMargin& m : margins) {
        if (m.backward != backward) continue;
        all.groups += m.margin[at].groups;
        if (m.margin[at].largest > all.largest) all.largest = m.margin[at].largest, where = m.kernel + " on " + m.where[at];
        if (m.margin[at].quantile_share > all.quantile_share)
          all.quantile_share = m.margin[at].quantile_share, all.quantile = m.margin[at].quantile;
      }
      if (all.groups == 0) continue;
      const std::string quantile = all.quantile > 0 ? line("%.2f of z %.2f", all.quantile_share, all.quantile) : "-";
      const std::string seen = all.largest > 0 ? line("%.2f", all.largest) : "-";
      const std::string margin = all.largest > 0 ? line("%.2f", least_factor(group) / all.largest) : "-";
      text += line("%-9s %-13s %10lld %9.2f %8s %8s  %16s  %s\n", backward ? "backward" : "forward", std::string(name(group)).c_str(),
                   static_cast<long long>(all.groups), least_factor(group), seen.c_str(), margin.c_str(), quantile.c_str(), where.c_str());
    }
  text += line("\n%-32s %-9s %6s %8s %6s %12s %9s\n", "kernel", "direction", "cases", "outside", "above", "error/bound", "ms/case");
  std::int64_t cases = 0, above = 0, tried = 0, planned = 0;
  double spent = 0, whole = 0; // a kernel that was not tried yet is taken to be like those that were
  std::int64_t unknown = 0;
  for (const KernelMargin& m : margins) {
    planned += m.planned;
    if (m.cases + m.outside == 0) {
      unknown += m.planned;
      continue;
    }
    tried += m.cases + m.outside, spent += m.seconds;
    whole += m.seconds / static_cast<double>(m.cases + m.outside) * static_cast<double>(m.planned);
    text += line("%-32s %-9s %6lld %8lld %6lld %12.3f %9.1f\n", m.kernel.c_str(), m.backward ? "backward" : "forward",
                 static_cast<long long>(m.cases), static_cast<long long>(m.outside), static_cast<long long>(m.above), m.largest_util,
                 m.cases > 0 ? 1e3 * m.seconds / static_cast<double>(m.cases) : 0.0);
    cases += m.cases, above += m.above;
  }
  text += line("%lld cases, %lld above their bound\n", static_cast<long long>(cases), static_cast<long long>(above));
  if (tried > 0 && tried < planned)
    text += line("%lld of %lld planned cases were begun in the time given; all take about %.0f minutes of one core\n",
                 static_cast<long long>(tried), static_cast<long long>(planned),
                 (whole + spent / static_cast<double>(tried) * static_cast<double>(unknown)) / 60);
  return text;
}

} // namespace kdacheck
