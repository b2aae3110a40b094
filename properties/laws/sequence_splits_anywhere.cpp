// The state is all that a token needs to know of the past, so it can be handed over anywhere. Each part is judged on its
// own, the second from the very state that the first wrote: a kernel may carry more digits inside than it hands over, so
// one run need not have the bits of two.

#include "../perturbed/trial.hpp"

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  trial.applies_if(trial.contract.initial_state, "the kernel takes no initial state");
  const Problem whole = chosen(trial.problem, alone(trial.problem, trial.longest(trial.problem)));
  trial.applies_if(whole.shape.T >= 2, "a single token cannot be split");
  const std::int64_t chunk = trial.contract.chunk, chunks = (whole.shape.T - 1) / chunk;
  const bool at_boundary = chunks > 0 && trial.pick(2) == 0;
  const std::int64_t split = at_boundary ? chunk * (1 + trial.pick(chunks)) : 1 + trial.pick(whole.shape.T - 1);

  const Problem first = chosen(whole, window(whole, 0, split));
  Problem second = chosen(whole, window(whole, split, whole.shape.T - split));
  const Run run_first = trial.forward(first);
  second.initial_state = run_first.final_state;
  const Run run_second = trial.forward(second);
  const std::string what = "split before token " + std::to_string(split);
  trial.expect_true(first, run_first, what + ", first part");
  trial.expect_true(second, run_second, what + ", second part from the state that the first wrote");
}

} // namespace

Property sequence_splits_anywhere() {
  return {.name = "sequence-splits-anywhere",
          .claim = "running a sequence in two parts and handing the state over gives what one run gives",
          .check = tried<law>};
}

} // namespace kdacheck::laws
