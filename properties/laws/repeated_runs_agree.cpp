// Races and summation orders that depend on threads show as bits that come and go.

#include "../perturbed/trial.hpp"

#include <array>
#include <future>

#include <omp.h>

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  const Run first = trial.forward(trial.problem);
  trial.expect_same(trial.problem, first, trial.forward(trial.problem), "the call repeated", Equality::bits);
  std::array<std::future<Run>, 3> beside; // futures hand on what a kernel's process throws
  for (std::size_t i = 0; i < beside.size(); ++i)
    beside[i] = std::async(std::launch::async, [&, i] {
      omp_set_num_threads(static_cast<int>(i) + 1); // counts only for the thread that says so
      return run_forward(trial.kernel, trial.problem);
    });
  for (auto& other : beside) {
    const Run run = other.get();
    trial.expect(!run.refused, "refused the call when made from another thread");
    trial.expect_same(trial.problem, first, run, "the call from another thread, beside others", Equality::bits);
  }
}

} // namespace

Property repeated_runs_agree() {
  return {.name = "repeated-runs-agree",
          .claim = "the same call gives the same bits again, from any thread and beside other calls",
          .excluded =
              [](const Contract& contract) {
                return std::string(contract.repeat == Sameness::bitwise ? "" : "repeat=none: the kernel does not promise it");
              },
          .check = tried<law>};
}

} // namespace kdacheck::laws
