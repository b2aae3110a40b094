// Errors do not pass through later chunks here, so that the bound on them is at its sharpest; the state read back has
// the size and the correlation with the keys that it has in use.

#include "../perturbed/trial.hpp"

#include <algorithm>

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  trial.applies_if(trial.contract.initial_state, "the kernel takes no initial state");
  const Problem whole = chosen(trial.problem, alone(trial.problem, trial.longest(trial.problem)));
  const std::int64_t count = std::min(whole.shape.T, trial.contract.chunk);
  trial.applies_if(count >= 1, "no tokens");
  const auto warm = trial.judge.forward_truth(whole);
  Problem chunk = chosen(whole, window(whole, whole.shape.T - count, count));
  chunk.initial_state.assign(warm->final_state.value.begin(), warm->final_state.value.end());
  trial.applies_if(trial.supports(chunk), "the kernel does not take the state");
  trial.expect_true(chunk, trial.forward(chunk), "one chunk from the state that the sequence ended in");
}

} // namespace

Property a_chunk_from_a_warm_state_is_right() {
  return {
      .name = "a-chunk-from-a-warm-state-is-right", .claim = "one chunk that starts from a realistic state is right", .check = tried<law>};
}

} // namespace kdacheck::laws
