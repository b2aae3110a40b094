// A tail is worked off by masks, a full chunk without them: both must give the same bits for the tokens they share.

#include "../perturbed/trial.hpp"

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  const Problem& problem = trial.problem;
  const std::int64_t length = sequences(problem)[static_cast<std::size_t>(trial.longest(problem))].length;
  trial.applies_if(length >= 2, "a single token cannot be shortened");
  const Choice past = prefix(problem, 1 + trial.pick(length - 1));
  trial.applies_if(problem.cu_seqlens.empty() || trial.contract.packed, "the kernel takes no packed sequences");
  const Problem shorter = chosen(problem, past);
  const Run expected = trial.forward(shorter, {.final_state = false});
  Run got = chosen(trial.forward(problem, {.final_state = false}), problem, past);
  trial.expect_same_or_true(trial.contract.prefix, shorter, expected, got, "the beginning of the longer sequence");
}

} // namespace

Property appended_tokens_change_nothing_before_them() {
  return {.name = "appended-tokens-change-nothing-before-them",
          .claim = "a longer sequence begins with every bit of the shorter one's output",
          .check = tried<law>};
}

} // namespace kdacheck::laws
