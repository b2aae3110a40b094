// A memory that has nearly converged: bf16(v) - bf16(S^T k) is then nothing but rounding, and learning stops silently
// (attention-gym #465).

#include "../perturbed/trial.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  const Contract& c = trial.contract;
  trial.applies_if(c.order == Order::residual_first || c.order == Order::recurrence, "the declared order may round S^T k by itself");
  trial.applies_if(c.state == Format::fp32, "the state is stored in a narrower format");
  trial.applies_if(c.initial_state, "the kernel takes no initial state");
  Recipe recipe = trial.plain();
  recipe.lengths.clear();
  recipe.shape.T = 1;
  recipe.shape.K = std::max<std::int64_t>(recipe.shape.K, 4);
  recipe.state = StatePattern::gaussian;
  recipe.options.scale = 1;
  Problem problem = trial.make(recipe);
  const std::int64_t K = problem.shape.K, V = problem.shape.V;
  trial.applies_if(problem.options.rule == Rule::kda && K >= 4 && !problem.initial_state.empty(), "needs KDA with four key channels");
  std::ranges::fill(problem.g, 0.0f);
  std::ranges::fill(problem.beta, 1.0f);
  std::ranges::fill(problem.v, 4096.0f);
  for (std::size_t i = 0; i < problem.k.size(); ++i) problem.k[i] = i % static_cast<std::size_t>(K) < 4 ? 0.5f : 0.0f;
  // rows 8192 and 4 n: S^T k = 4096 + 2 n, the residual -2 n, n = 1 ... 64; all of it exact in every format of 8 bits
  const auto n_of = [&](std::size_t i) { return static_cast<float>(i % static_cast<std::size_t>(V) % 64 + 1); };
  const auto row_of = [&](std::size_t i) { return static_cast<std::int64_t>(i) / V % K; };
  for (std::size_t i = 0; i < problem.initial_state.size(); ++i)
    problem.initial_state[i] = row_of(i) == 0 ? 8192 : row_of(i) == 1 ? 4 * n_of(i) : 0;
  trial.applies_if(trial.supports(problem), "outside the kernel's domain");
  const Run run = trial.forward(problem);
  for (std::size_t i = 0; i < run.final_state.size(); ++i) {
    const float due = problem.initial_state[i] - (row_of(i) < 4 ? n_of(i) : 0.0f);
    trial.expect(run.final_state[i] == due, fmt::format("{:.9g} where exactly {:.9g} is due", run.final_state[i], due),
                 place_of(Output::final_state, problem, c.chunk, i));
  }
}

} // namespace

Property the_residual_is_not_rounded_first() {
  return {.name = "the-residual-is-not-rounded-first",
          .claim = "v - S^T k is taken before anything is rounded: a residual of 2 between numbers of 4096 survives",
          .regimes = {"usual-decay", "converged-memory", "odd-widths"},
          .check = tried<law>};
}

} // namespace kdacheck::laws
