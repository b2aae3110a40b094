#include "drift.hpp"

#include "campaign.hpp"
#include "compare.hpp"
#include "run.hpp"

#include <algorithm>
#include <cmath>

namespace kdacheck {
namespace {

constexpr std::int64_t shortest = 64;

/// First tokens of windows that cover [0, T), four to an octave.
std::vector<std::int64_t> window_starts(std::int64_t T) {
  std::vector<std::int64_t> starts;
  for (int quarter = 0;; ++quarter) {
    const auto start = static_cast<std::int64_t>(std::floor(std::exp2(quarter / 4.0))) - 1;
    if (start >= T) return starts;
    if (starts.empty() || start > starts.back()) starts.push_back(start);
  }
}

/// One sequence and one head: token t is row t.
std::vector<DriftWindow> windows_of(const std::vector<double>& utilisation) {
  const auto T = static_cast<std::int64_t>(utilisation.size());
  std::vector<DriftWindow> windows;
  const auto starts = window_starts(T);
  for (std::size_t i = 0; i < starts.size(); ++i) {
    const auto from = utilisation.begin() + starts[i], to = i + 1 < starts.size() ? utilisation.begin() + starts[i + 1] : utilisation.end();
    const auto worst = std::max_element(from, to);
    DriftWindow window{.token = worst - utilisation.begin(), .largest = *worst};
    std::vector<double> sorted(from, to);
    const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2);
    std::nth_element(sorted.begin(), middle, sorted.end());
    window.median = *middle;
    windows.push_back(window);
  }
  return windows;
}

} // namespace

Recipe long_run(Recipe recipe, std::int64_t T, std::int64_t widest_key, std::int64_t widest_value) {
  recipe.lengths.clear();
  recipe.shape = {.B = 1, .T = T, .H = 1, .HV = 1, .K = std::min(recipe.shape.K, widest_key), .V = std::min(recipe.shape.V, widest_value)};
  return recipe;
}

const std::vector<std::string>& drift_regimes() {
  static const std::vector<std::string> names{"no-decay", "slow-decay", "near-identical-keys", "reflections"};
  return names;
}

Recipe drift_recipe(const Kernel& kernel, const Regime& regime, std::uint64_t seed, std::int64_t T) {
  Recipe recipe = long_run(regime.draw(seed, Tier::full), T, 16, 8);
  recipe.loss = LossPattern::none;
  return fitted(recipe, kernel.contract);
}

Drift measure_drift(const Kernel& kernel, const Regime& regime, std::uint64_t seed, std::int64_t longest) {
  Drift drift{.kernel = kernel.name, .regime = regime.name, .lengths = {}, .windows = {}};
  std::vector<std::int64_t> lengths;
  for (std::int64_t T = longest; T >= std::min(shortest, longest); T /= 4) lengths.push_back(T);
  std::reverse(lengths.begin(), lengths.end());
  for (const std::int64_t T : lengths) {
    const Recipe recipe = drift_recipe(kernel, regime, seed, T);
    DriftLength measured{.T = recipe.shape.T, .finding = {}, .replay = replay_token({kernel.name, drift_law, recipe})};
    const Problem problem = make_problem(recipe, input_formats(kernel.contract));
    if (auto reason = outside_domain(kernel.contract, problem)) {
      measured.finding.verdict = Verdict::not_supported;
      measured.finding.detail = std::move(*reason);
    } else {
      Judge judge; // one at a time: a truth of 1e5 tokens is not kept beside the next
      const Run run = run_forward(kernel, problem);
      measured.finding = judge.forward(kernel.contract, problem, run);
      if (T == longest && run.o.size() == problem.v.size())
        drift.windows = windows_of(token_utilisation(kernel.contract, problem, *judge.forward_truth(problem),
                                                     *judge.forward_budget(kernel.contract, problem), run));
    }
    drift.lengths.push_back(std::move(measured));
  }
  return drift;
}

} // namespace kdacheck
