// What is kept by address (a plan of the packed lengths, a sum of the gates) goes stale where the next call finds other numbers there:
// serving loops fill the same buffers again and again.

#include "../other_contents.hpp"

namespace kdacheck::laws {
namespace {

// Judged by the oracle: memory that seems new has often been used before as well.
void law(Trial& trial) {
  const std::array<Problem, 2> turns{trial.problem, with_other_contents(trial)};
  const std::vector<Run> runs = trial.forward_in_turn(turns);
  for (std::size_t i = 0; i < runs.size(); ++i)
    trial.expect_true(turns[i], runs[i], i == 0 ? "on new memory" : "on memory that held another problem before");
}

} // namespace

Property reused_memory_gives_new_results() {
  return {.name = "reused-memory-gives-new-results",
          .claim = "a call on memory that held another problem before, other packed lengths included, is right all the same",
          .regimes = {"usual-decay", "packed", "packed-with-empty", "grouped-heads", "whole-chunks", "every-pair"},
          .check = tried<law>};
}

} // namespace kdacheck::laws
