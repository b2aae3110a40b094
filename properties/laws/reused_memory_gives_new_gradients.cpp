// What a backward pass keeps by address from the call before, or takes over from a forward pass that saw other numbers there.

#include "../other_contents.hpp"

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  Recipe recipe = trial.recipe;
  recipe.loss = LossPattern::everywhere;
  const Problem problem = trial.make(recipe);
  const std::array<Problem, 2> turns{problem, with_other_contents(trial, recipe)};
  const std::vector<Run> runs = trial.backward_in_turn(turns);
  for (std::size_t i = 0; i < runs.size(); ++i)
    trial.expect_true_gradients(turns[i], runs[i], i == 0 ? "on new memory" : "on memory that held another problem before");
}

} // namespace

Property reused_memory_gives_new_gradients() {
  return {.name = "reused-memory-gives-new-gradients",
          .claim = "a backward pass on memory that held another problem before gives its own gradients",
          .direction = Direction::backward,
          .regimes = {"usual-decay", "packed", "grouped-heads", "whole-chunks", "every-pair"},
          .check = tried<law>};
}

} // namespace kdacheck::laws
