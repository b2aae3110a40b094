// Two KDA layers, trained with the suite's kernels, learn to recall: associative recall (MQAR), reversal (Palindrome) and stacks, in
// small. A kernel that is wrong on purpose loses what was learned. bench/synthetic_tasks.cpp does it in large.

#include "trained_model.hpp"

#include "../../faults/faults.hpp"

#include <catch2/catch.hpp>
#include <cstdio>

using namespace kdacheck;
using namespace kdacheck::modules::tests;

namespace {

const Kernel& trained_with() { return *std::ranges::find(built_in_kernels(), std::string("cpu.chunk16.fp32"), &Kernel::name); }

double learned(Model& model, const Task& task, double wanted, int most_steps) {
  const Trained trained = train(model, task, trained_with(), wanted, {.most_steps = most_steps});
  std::printf("%.1f %% right after %d steps\n", 100 * trained.accuracy, trained.steps);
  return trained.accuracy;
}

} // namespace

TEST_CASE("two layers learn associative recall, and a fault of the kernel loses what was learned") {
  const Task task = associative_recall(8, 12, 16);
  Model model = fresh_model(task, 16, 1);
  CHECK(accuracy(model, task, trained_with()) < 0.2);
  CHECK(learned(model, task, 0.95, 1000) >= 0.95);
  int others = 0, faults = 0;
  for (const Kernel& other : built_in_kernels()) // trained with one, right with all that are right
    if (other.name == "cpu.recurrence.fp32" || other.name == "cpu.chunk64.bf16") {
      ++others;
      CHECK(accuracy(model, task, other) > 0.93);
    }
  CHECK(others == 2);
  for (const FaultInfo& fault : planted_faults()) {
    const bool forgets = fault.fault == Fault::carry_dropped || fault.fault == Fault::state_transposed;
    if (!forgets && fault.fault != Fault::previous_beta) continue;
    ++faults;
    INFO(fault.name);
    CHECK(accuracy(model, task, faulty_kernel(fault)) < (forgets ? 0.3 : 0.9));
  }
  CHECK(faults == 3);
}

TEST_CASE("two layers learn to reverse a sequence") {
  const Task task = palindrome(8, 12);
  Model model = fresh_model(task, 16, 2);
  CHECK(learned(model, task, 0.95, 1500) >= 0.95);
}

TEST_CASE("two layers learn to follow four stacks") {
  const Task task = stacks(4, 10, 16);
  Model model = fresh_model(task, 16, 3);
  CHECK(learned(model, task, 0.9, 1500) >= 0.9);
}
