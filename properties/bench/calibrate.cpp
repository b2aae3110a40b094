// Judges kernels that are meant to be right over every regime and many seeds, and prints by how much they stay inside
// their budgets: the experiment that the factors in confidence.hpp rest on. Anything above 1 is a false alarm or a fault.
//
//   calibrate [--kernel GLOB] [--regime GLOB] [--seeds N] [--first-seed N] [--tier quick] [--backward] [--by-regime] [--seconds S]

#include "../judge.hpp"
#include "../recipe.hpp"
#include "../selection.hpp"

#include "../../kernels/kernel.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <fmt/core.h>
#include <map>
#include <string>

namespace {

using namespace kdacheck;

struct Cell {
  double largest = 0, seconds = 0;
  std::int64_t cases = 0, alarms = 0, inconclusive = 0, outside = 0;
};

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

} // namespace

int main(int count, char** arguments) {
  CLI::App app("How far correct kernels stay inside their budgets");
  std::string kernel_pattern = "*", regime_pattern = "*", tier_name = "quick";
  std::uint64_t first_seed = 1, seeds = 10;
  double seconds = 1e9;
  bool backward = false, by_regime = false;
  app.add_option("--kernel", kernel_pattern);
  app.add_option("--regime", regime_pattern);
  app.add_option("--seeds", seeds);
  app.add_option("--first-seed", first_seed);
  app.add_option("--seconds", seconds);
  app.add_option("--tier", tier_name)->check(CLI::IsMember({"quick", "full", "nightly"}));
  app.add_flag("--backward", backward);
  app.add_flag("--by-regime", by_regime);
  CLI11_PARSE(app, count, arguments);
  const Tier tier = tier_name == "quick" ? Tier::quick : tier_name == "full" ? Tier::full : Tier::nightly;
  std::map<std::string, Cell> by_kernel, of_regime;
  const double start = now();
  for (std::uint64_t seed = first_seed; seed < first_seed + seeds && now() - start < seconds; ++seed)
    for (const Regime& regime : regimes()) {
      if (!glob_matches(regime_pattern, regime.name)) continue;
      Judge judge;
      for (const Kernel& kernel : built_in_kernels()) {
        if (!glob_matches(kernel_pattern, kernel.name) || (backward && !kernel.backward)) continue;
        Cell& cell = by_kernel[kernel.name];
        Cell& other = of_regime[regime.name];
        const Recipe recipe = fitted(regime.draw(seed, tier), kernel.contract);
        const Problem problem = make_problem(recipe, input_formats(kernel.contract));
        if (outside_domain(kernel.contract, problem)) {
          ++cell.outside, ++other.outside;
          continue;
        }
        const Run run = backward ? run_backward(kernel, problem) : run_forward(kernel, problem);
        const double before = now();
        const Finding finding = backward ? judge.backward(kernel.contract, problem, run) : judge.forward(kernel.contract, problem, run);
        for (Cell* c : {&cell, &other}) {
          c->seconds += now() - before;
          ++c->cases;
          c->alarms += is_failure(finding.verdict);
          c->inconclusive += finding.verdict == Verdict::inconclusive;
          c->largest = std::max(c->largest, finding.bound_util);
        }
        if (finding.verdict != Verdict::passed) {
          const Shape& s = recipe.shape;
          fmt::print("{:<24} {:<28} seed {:<4} {} util {:.3g} | {} | {} | B {} T {} H {} HV {} K {} V {} N {}\n", kernel.name, regime.name,
                     seed, name(finding.verdict), finding.bound_util, finding.place ? to_text(*finding.place) : "", finding.detail, s.B,
                     s.T, s.H, s.HV, s.K, s.V, sequence_count(problem));
          std::fflush(stdout);
        }
      }
    }
  const auto table = [](const char* title, const std::map<std::string, Cell>& cells) {
    fmt::print("\n{:<28} {:>7} {:>8} {:>7} {:>7} {:>8} {:>9}\n", title, "cases", "outside", "alarms", "unsure", "largest", "ms/case");
    for (const auto& [label, c] : cells)
      fmt::print("{:<28} {:>7} {:>8} {:>7} {:>7} {:>8.3g} {:>9.2f}\n", label, c.cases, c.outside, c.alarms, c.inconclusive, c.largest,
                 c.cases > 0 ? 1e3 * c.seconds / static_cast<double>(c.cases) : 0.0);
  };
  table("kernel", by_kernel);
  if (by_regime) table("regime", of_regime);
  std::int64_t alarms = 0;
  for (const auto& [label, c] : by_kernel) alarms += c.alarms;
  return alarms == 0 ? 0 : 1;
}
