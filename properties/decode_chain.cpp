#include "decode_chain.hpp"

#include <algorithm>

namespace kdacheck {

Run decode_chain(Trial& trial, const Problem& problem) {
  const SizeRange steps = trial.contract.decode;
  const std::int64_t unit = std::max<std::int64_t>(steps.multiple, 1), T = problem.shape.T;
  const std::int64_t least = (steps.least + unit - 1) / unit * unit;
  const bool strided = trial.contract.strided && trial.pick(2) == 0;
  Run whole;
  Problem done;
  for (std::int64_t t = 0; t < T;) {
    const std::int64_t most = std::min(steps.most, T - t) / unit * unit;
    trial.applies_if(most >= least, "the kernel's decode steps do not add up to this length");
    // the rest must not become too short for another step
    std::int64_t n = least + unit * trial.pick((most - least) / unit + 1);
    if (T - t - n > 0 && T - t - n < least) n = T - t <= steps.most ? T - t : least;
    Problem piece = chosen(problem, window(problem, t, n));
    if (t > 0) piece.initial_state = whole.final_state;
    const Run run = trial.decode(piece, {.strided = strided});
    trial.expect(run.trespasses.empty(), run.trespasses.empty() ? "" : run.trespasses.front());
    if (t == 0) {
      whole = run;
      done = piece;
    } else {
      whole = joined_in_time(done, whole, piece, run);
      done = chosen(problem, window(problem, 0, t + n));
    }
    t += n;
  }
  return whole;
}

} // namespace kdacheck
