#include "trial.hpp"

namespace kdacheck {

Run Trial::backward(const Problem& of, const RunOptions& options) {
  if (!kernel.backward) does_not_apply("the kernel has no backward pass");
  if (const auto why = outside_domain(contract, of)) does_not_apply(*why);
  return answered(run_backward(kernel, of, options));
}

std::vector<Run> Trial::backward_in_turn(std::span<const Problem> problems) {
  if (!kernel.backward) does_not_apply("the kernel has no backward pass");
  all_inside(problems);
  return answered(run_backward_in_turn(kernel, problems));
}

void Trial::expect_true_gradients(const Problem& of, const Run& run, std::string_view what) {
  add(judge.backward(contract, of, run), what);
}

void Trial::expect_same_or_true_gradients(Sameness promised, const Problem& of, const Run& expected, const Run& got, std::string_view what,
                                          Equality equality) {
  if (promised == Sameness::bitwise && contract.repeat == Sameness::bitwise) return expect_same(of, expected, got, what, equality);
  expect_true_gradients(of, got, what);
}

} // namespace kdacheck
