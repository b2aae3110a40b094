// Serving takes one token, or a few, at a time from the state that the last step left in place: a step that forgets its
// decay, reads a state that it has already changed, or mixes up sequences of the batch shows after a few of them.

#include "../decode_chain.hpp"

#include <algorithm>

namespace kdacheck::laws {
namespace {

constexpr std::int64_t longest_chain = 64;

void law(Trial& trial) {
  trial.applies_if(static_cast<bool>(trial.kernel.decode), "the kernel has no decode step");
  const bool packed = !trial.problem.cu_seqlens.empty();
  const Problem all = packed ? chosen(trial.problem, alone(trial.problem, trial.longest(trial.problem))) : trial.problem;
  trial.applies_if(all.shape.T >= 1, "no tokens");
  const Problem problem = chosen(all, window(all, 0, std::min(all.shape.T, longest_chain)));
  trial.expect_true_decode(problem, decode_chain(trial, problem), "a chain of decode steps");
}

} // namespace

Property a_decode_chain_is_the_recurrence() {
  return {.name = "a-decode-chain-is-the-recurrence",
          .claim = "decode steps in a row, the state in place, give what the recurrence gives",
          .in_every_round = true,
          .check = tried<law>};
}

} // namespace kdacheck::laws
