// Entries that are read before they are written: tails of tiles, the upper triangle of an inverse.

#include "../perturbed/trial.hpp"

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  const Run zeros = trial.forward(trial.problem, {.workspace_poison = 0});
  for (const std::uint32_t poison : {0x7fc5a5a5u, 0x3f9d70a4u})
    trial.expect_same_or_true(trial.contract.repeat, trial.problem, zeros, trial.forward(trial.problem, {.workspace_poison = poison}),
                              "the workspace held something else before");
}

} // namespace

Property workspace_contents_have_no_influence() {
  return {.name = "workspace-contents-have-no-influence",
          .claim = "the same bits come out whatever the workspace held before",
          .check = tried<law>};
}

} // namespace kdacheck::laws
