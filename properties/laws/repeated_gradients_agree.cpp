// Sums over heads and sequences by atomic additions come out in any order.

#include "../perturbed/trial.hpp"

#include <array>
#include <future>

#include <omp.h>

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  Recipe recipe = trial.recipe;
  recipe.loss = LossPattern::everywhere;
  const Problem problem = trial.make(recipe);

  const Run first = trial.backward(problem);
  trial.expect_same(problem, first, trial.backward(problem), "the call repeated", Equality::bits);
  std::array<std::future<Run>, 2> beside; // futures hand on what a kernel's process throws
  for (std::size_t i = 0; i < beside.size(); ++i)
    beside[i] = std::async(std::launch::async, [&, i] {
      omp_set_num_threads(static_cast<int>(i) + 1); // counts only for the thread that says so
      return run_backward(trial.kernel, problem);
    });
  for (auto& other : beside) {
    const Run run = other.get();
    trial.expect(!run.refused, "refused the call when made from another thread");
    trial.expect_same(problem, first, run, "the call from another thread, beside others", Equality::bits);
  }
}

} // namespace

Property repeated_gradients_agree() {
  return {.name = "repeated-gradients-agree",
          .claim = "the same backward call gives the same bits again, from any thread and beside other calls",
          .direction = Direction::backward,
          .excluded =
              [](const Contract& contract) {
                return std::string(contract.repeat == Sameness::bitwise ? "" : "repeat=none: the kernel does not promise it");
              },
          .check = tried<law>};
}

} // namespace kdacheck::laws
