// A prompt is read in one pass, its answer is decoded from the state that the pass left: both must mean the same state, in
// the same layout, with the same decay. Each part is judged on its own, the second from the very state that the first wrote.

#include "../decode_chain.hpp"

#include <algorithm>

namespace kdacheck::laws {
namespace {

constexpr std::int64_t longest_answer = 16;

void law(Trial& trial) {
  trial.applies_if(static_cast<bool>(trial.kernel.decode), "the kernel has no decode step");
  const Problem whole = chosen(trial.problem, alone(trial.problem, trial.longest(trial.problem)));
  const std::int64_t T = whole.shape.T;
  trial.applies_if(T >= 2, "a single token has nothing to go on from");
  const std::int64_t answer = 1 + trial.pick(std::min(T - 1, longest_answer)), split = T - answer;
  const Problem prompt = chosen(whole, window(whole, 0, split));
  Problem rest = chosen(whole, window(whole, split, answer));
  const Run prefill = trial.forward(prompt);
  trial.expect_true(prompt, prefill, "the prefill");
  rest.initial_state = prefill.final_state;
  trial.expect_true_decode(rest, decode_chain(trial, rest), "decode steps from the state that a prefill left");
}

} // namespace

Property decode_goes_on_from_a_prefill() {
  return {.name = "decode-goes-on-from-a-prefill",
          .claim = "a prefill and decode steps after it give what a prefill of all tokens gives",
          .check = tried<law>};
}

} // namespace kdacheck::laws
