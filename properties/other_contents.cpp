#include "other_contents.hpp"

#include <algorithm>

namespace kdacheck {

Problem with_other_contents(const Trial& trial, const Recipe& recipe) {
  Recipe other = recipe;
  other.seed += 1;
  if (other.lengths.size() > 1) {
    std::ranges::rotate(other.lengths, other.lengths.begin() + 1);
    if (other.lengths == recipe.lengths && other.lengths.front() > 0) { // all alike
      --other.lengths.front();
      ++other.lengths.back();
    }
  }
  return trial.make(other);
}

Problem with_other_contents(const Trial& trial) { return with_other_contents(trial, trial.recipe); }

} // namespace kdacheck
