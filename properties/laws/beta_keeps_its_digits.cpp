// A beta that was rounded on its way (to bf16, as in vLLM #53877) is one relative error in all channels: averaging over
// them sees it where single elements cannot.

#include "../perturbed/trial.hpp"

#include <algorithm>
#include <cmath>

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  Recipe recipe = trial.plain();
  recipe.lengths.clear();
  recipe.shape.T = 1;
  recipe.shape.V = std::max<std::int64_t>(recipe.shape.V, 64);
  recipe.state = StatePattern::absent;
  Problem problem = trial.make(recipe);
  const auto [B, T, H, HV, K, V] = problem.shape;
  trial.applies_if(problem.options.rule == Rule::kda, "a law of KDA");
  trial.applies_if(T == 1, "the kernel takes no single token");
  trial.applies_if(V >= 32, "too few value channels to average over");
  std::ranges::fill(problem.g, 0.0f);
  std::ranges::fill(problem.k, 0.0f);
  for (std::size_t row = 0; row < problem.k.size(); row += static_cast<std::size_t>(K))
    problem.k[row + static_cast<std::size_t>(trial.pick(K))] = 1;
  for (float& v : problem.v) v = 1 + static_cast<float>(trial.pick(128)) / 128; // mantissas of every kind, exact in bf16
  const Contract& c = trial.contract;
  const Run run = trial.forward(problem);
  for (std::int64_t row = 0; row < B * HV; ++row) {
    const double beta = problem.beta[static_cast<std::size_t>(row)];
    const std::int64_t key_row = row / HV * H + row % HV / (HV / H);
    const auto channel =
        std::ranges::find(problem.k.begin() + key_row * K, problem.k.begin() + (key_row + 1) * K, 1.0f) - (problem.k.begin() + key_row * K);
    double error = 0, square = 0, fourth = 0;
    for (std::int64_t j = 0; j < V; ++j) {
      const double due = beta * problem.v[static_cast<std::size_t>(row * V + j)];
      error += (run.final_state[static_cast<std::size_t>((row * K + channel) * V + j)] - due) * due;
      square += due * due;
      fourth += due * due * due * due;
    }
    if (square == 0) continue;
    // Roundings that every channel shares: beta as operand, three in the accumulator's format; truncation is one-sided.
    // Those of single channels (U as operand, the stored state) are at most u |due| each; a sum of bounded independent
    // errors exceeds 6 of its widths with probability 2 e^-18 (Hoeffding).
    const double operand = unit_roundoff(c.operands), shared = (c.truncate ? 4 : 1.01) * operand + 3 * unit_roundoff(c.accumulate);
    const double single = std::hypot(operand, c.state == Format::fp32 ? 0x1p-24 : unit_roundoff(c.state));
    // below fp16's normal range the grid is absolute
    const double grid = std::ldexp(1.0, least_exponent(c.operands)) * static_cast<double>(V) / std::sqrt(square);
    trial.expect_within(std::abs(error / square), shared + 6 * single * std::sqrt(fourth) / square + grid,
                        "error of beta v common to all channels",
                        Place{.tensor = "final_state", .sequence = row / HV, .head = row % HV, .token = 0, .channel = -1, .row = channel});
  }
}

} // namespace

Property beta_keeps_its_digits() {
  return {.name = "beta-keeps-its-digits",
          .claim = "what one token writes into an empty state is beta v, with no error common to all its channels beyond one operand "
                   "rounding of beta",
          .regimes = {"usual-decay", "beta-to-two", "grouped-heads", "beta-one", "uniform-keys"},
          .check = tried<law>};
}

} // namespace kdacheck::laws
