// A kernel cannot be asked for another chunk, but where its chunks end must not show: tails have faults of their own
// (stale rows, the last decay taken from the full chunk, masks that only packed calls use).

#include "../perturbed/trial.hpp"

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  const std::int64_t block = trial.pick(2) == 0 ? std::max<std::int64_t>(trial.contract.chunk, 16) : 16;
  Recipe around = trial.recipe;
  around.lengths.clear();
  around.shape.B = 1;
  around.shape.T = block * (1 + trial.pick(2)) - 1 + trial.pick(3);
  const Problem problem = trial.make(around);
  trial.expect_true(problem, trial.forward(problem), "T = " + std::to_string(problem.shape.T));
}

} // namespace

Property chunk_size_is_invisible() {
  return {.name = "chunk-size-is-invisible",
          .claim = "outputs and final state are right at every length around a boundary of the chunk or of its 16-token sub-blocks",
          .check = tried<law>};
}

} // namespace kdacheck::laws
