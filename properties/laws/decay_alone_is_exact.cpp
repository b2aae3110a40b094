// k = 0 or beta = 0: the whole of (I - beta k k^T) and of the write drops out.

#include "../perturbed/trial.hpp"

#include <cmath>

namespace kdacheck::laws {
namespace {

// Sum of |g| over the tokens of a sequence, for the state row of `place`.
double total_decay(const Problem& problem, const Sequence& sequence, const Place& place) {
  double sum = 0;
  for (std::int64_t t = 0; t < sequence.length && !problem.g.empty(); ++t)
    sum +=
        std::abs(problem.g[static_cast<std::size_t>(((sequence.first + t) * problem.shape.HV + place.head) * problem.shape.K + place.row)]);
  return sum;
}

void law(Trial& trial) {
  trial.applies_if(trial.contract.initial_state, "the kernel takes no initial state");
  Recipe recipe = trial.plain();
  recipe.state = StatePattern::gaussian;
  const Problem made = trial.make(recipe);
  trial.applies_if(!made.initial_state.empty(), "the case has no initial state");
  const bool kda = made.options.rule == Rule::kda;
  const Problem problem =
      trial.pick(2) == 0 ? scaled(made, {Input::k, Input::a}, 0) : scaled(made, {kda ? Input::beta : Input::a, Input::v}, 0);
  const Run run = trial.forward(problem);
  const auto truth = trial.judge.forward_truth(problem);
  const Contract& c = trial.contract;
  const bool per_token = c.order == Order::recurrence || c.order == Order::undeclared;
  for (std::size_t i = 0; i < run.final_state.size(); ++i) {
    const Place place = place_of(Output::final_state, problem, c.chunk, i);
    const Sequence sequence = sequences(problem)[static_cast<std::size_t>(place.sequence)];
    const auto steps = static_cast<double>(per_token ? sequence.length : (sequence.length + c.chunk - 1) / c.chunk);
    // each stored state: one exp, one product, one sum with zero, one store; its exponent: a sum of up to C terms
    const double relative = steps * (c.exp_ulp * 0x1p-23 + 2 * unit_roundoff(c.accumulate) + unit_roundoff(c.state)) +
                            static_cast<double>(c.chunk + 1) * unit_roundoff(c.cumsum) * total_decay(problem, sequence, place);
    const double underflow =
        steps * (c.exp_ulp + 2) * std::ldexp(1.0, least_exponent(c.state)) * std::max(1.0, std::abs(double{problem.initial_state[i]}));
    const double due = truth->final_state.value[i];
    trial.expect_within(std::abs(run.final_state[i] - due), 1.01 * relative * std::abs(due) + underflow + truth->final_state.radius[i],
                        "the state after decay alone", place);
  }
}

} // namespace

Property decay_alone_is_exact() {
  return {.name = "decay-alone-is-exact",
          .claim = "with nothing written the state is e^{sum of g} S_0, to the few roundings of the contract",
          .check = tried<law>};
}

} // namespace kdacheck::laws
