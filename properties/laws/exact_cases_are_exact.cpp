// Orthonormal dyadic keys, no decay, beta 0, 1/2, 1, 2, integer values: error theory, section 5. No tolerance hides an
// index, a dropped carry or a truncated inverse here, whatever the formats.

#include "../trial.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  const Options& options = trial.problem.options;
  const bool no_decay = std::ranges::all_of(trial.problem.g, [](float g) { return g == 0; });
  const bool plain = options.gate == GateForm::log_decay || options.gate == GateForm::absent;
  trial.applies_if(options.rule == Rule::kda && plain && no_decay && options.beta == BetaForm::value && !options.l2norm,
                   "the kernel's forms of gate, beta or norm are not exact");
  const Run run = trial.forward(trial.problem);
  const auto truth = trial.judge.forward_truth(trial.problem);
  for (Output output : all_outputs)
    for (std::size_t i = 0; i < run[output].size(); ++i) {
      // all numbers are small multiples of 2^-20, and the truth's radius leaves only one of them
      const double scaled = (*truth)[output].value[i] * 0x1p20, whole = std::nearbyint(scaled);
      trial.applies_if((*truth)[output].radius[i] * 0x1p20 + std::abs(scaled - whole) < 0.25, "the exact number is not on the grid");
      const auto due = static_cast<float>(whole * 0x1p-20);
      const float expected = output == Output::o ? round_to(trial.contract.output, due) : due;
      trial.expect(same(expected, run[output][i], Equality::numbers),
                   fmt::format("{:.9g} where exactly {:.9g} is due", run[output][i], expected),
                   place_of(output, trial.problem, trial.contract.chunk, i));
    }
}

} // namespace

Property exact_cases_are_exact() {
  return {.name = "exact-cases-are-exact",
          .claim = "where every operation is exact, o and the state are the exact numbers, bit for bit",
          .regimes = {"exact-unit-keys", "exact-overwrites", "exact-walsh-keys", "exact-repeated-key"},
          .check = tried<law>};
}

} // namespace kdacheck::laws
