// Orthonormal dyadic keys, no decay, beta 0, 1/2, 1, 2, integer values: error theory, section 5. No tolerance hides an
// index, a dropped carry or a truncated inverse here, whatever the formats.

#include "../perturbed/trial.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace kdacheck::laws {
namespace {

bool holds_24_bits(Format format) { return format == Format::fp32 || format == Format::fp64; }

/// exact-residual: one key w in every token, |w| = 1 with entries +-1/8 at the least, beta 1, g 0, v = 4096, and a memory of
/// two rows, 4096 / w_0 and 2 m / w_1 with m = 1 ... 32, from which w reads 4096 + 2 m. Rounded to bf16 that number is a
/// multiple of 32. But no kernel that keeps its contract rounds it: V - kd S is formed in the accumulator, Z = -2 m in every
/// row of the first chunk has 5 bits; (I + L)^-1 has 1 on its diagonal, -1 under it and 0 elsewhere, so U = (-2 m, 0, 0, ...)
/// and o = 4096. So every operand is a number of 8 bits, and every sum one of 18 (from 2^15 down to 2^-2). The state that the
/// first token leaves, 4096 / w_0 - 2 m w_0, takes all 18: it must be stored as fp32, and where operands are narrower only the
/// first chunk is exact, for the next one reads it rounded, and of the recurrence not even that: its o is read from it. Order wy forms no
/// residual: T beta V and (T beta kd) S are apart until the end, and what the latter is rounded to is not declared.
void residual_is_exact(const Trial& trial) {
  const Contract& contract = trial.contract;
  trial.applies_if(contract.order == Order::residual_first || contract.order == Order::recurrence,
                   "the declared order may round S^T k by itself");
  trial.applies_if(holds_24_bits(contract.state) && holds_24_bits(contract.accumulate),
                   "the state or the sums have fewer than the 18 bits that the residual takes");
  trial.applies_if(holds_24_bits(contract.operands) || contract.order != Order::recurrence,
                   "the recurrence reads its outputs from the new state, with operands of fewer bits");
  trial.applies_if(holds_24_bits(contract.operands) || trial.problem.shape.T <= contract.chunk,
                   "only the first chunk is exact with operands of fewer bits than the state");
}

void law(Trial& trial) {
  const Options& options = trial.problem.options;
  const bool no_decay = std::ranges::all_of(trial.problem.g, [](float g) { return g == 0; });
  const bool plain = options.gate == GateForm::log_decay || options.gate == GateForm::absent;
  trial.applies_if(options.rule == Rule::kda && plain && no_decay && options.beta == BetaForm::value && !options.l2norm,
                   "the kernel's forms of gate, beta or norm are not exact");
  // a kernel that takes only K^-1/2 is given that
  int exponent = 0;
  trial.applies_if(std::abs(std::frexp(options.scale, &exponent)) == 0.5f, "the scale is not a power of two: q times it is rounded");
  if (trial.recipe.values == ValuePattern::held) residual_is_exact(trial);
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
          .regimes = {"exact-unit-keys", "exact-overwrites", "exact-walsh-keys", "exact-repeated-key", "exact-residual"},
          .check = tried<law>};
}

} // namespace kdacheck::laws
