#include "../campaign.hpp"
#include "../../kernels/faults/faults.hpp"
#include "../../kernels/plugin/abandoned_calls.hpp"

#include <catch2/catch.hpp>

#include <atomic>
#include <chrono>
#include <map>
#include <set>
#include <thread>

using namespace kdacheck;

namespace {

Plan small_plan() {
  Plan plan;
  for (const Kernel& kernel : built_in_kernels())
    if (kernel.name == "cpu.recurrence.fp32" || kernel.name == "cpu.chunk16.bf16") plan.kernels.push_back(&kernel);
  for (const Property& property : properties())
    if (property.name == "agrees-with-the-oracle" || property.name == "repeated-runs-agree") plan.properties.push_back(&property);
  for (const Regime& regime : regimes())
    if (plan.regimes.size() < 6) plan.regimes.push_back(&regime);
  plan.shrink_seconds = 0;
  return plan;
}

std::map<std::string, std::pair<Verdict, double>> results_of(const Plan& plan, Outcome* outcome = nullptr) {
  std::map<std::string, std::pair<Verdict, double>> results;
  const Outcome done = run_campaign(plan, [&](const CaseResult& result) {
    CHECK(results.emplace(case_key(result), std::pair{result.finding.verdict, result.finding.bound_util}).second);
  });
  if (outcome) *outcome = done;
  return results;
}

/// A kernel whose outputs are all zero.
Kernel silent_kernel() {
  Kernel kernel = faultless_kernel("silent", "chunk=16");
  kernel.forward = [](const Inputs&, const Outputs& out, std::span<std::byte>) {
    for (std::int64_t i = 0; i < out.o.elements(); ++i) store(out.o, i, 0);
    if (out.final_state)
      for (std::int64_t i = 0; i < out.final_state.elements(); ++i) store(out.final_state, i, 0);
  };
  return kernel;
}

} // namespace

TEST_CASE("a campaign gives the same results for any number of threads") {
  Plan plan = small_plan();
  plan.threads = 1;
  Outcome outcome;
  const auto alone = results_of(plan, &outcome);
  CHECK(alone.size() > 20);
  CHECK(outcome.ran == alone.size());
  CHECK(outcome.planned == outcome.ran);
  CHECK_FALSE(outcome.stopped);
  plan.threads = 3;
  CHECK(results_of(plan) == alone);
}

TEST_CASE("another seed draws other cases") {
  Plan plan = small_plan();
  const auto first = results_of(plan);
  plan.seed = 2;
  std::size_t shared = 0;
  for (const auto& [key, finding] : results_of(plan)) shared += first.contains(key) ? 1 : 0;
  CHECK(shared < first.size() / 4);
}

TEST_CASE("shards are disjoint and together are the whole") {
  Plan plan = small_plan();
  const auto whole = results_of(plan);
  std::map<std::string, std::pair<Verdict, double>> joined;
  plan.shards = 3;
  for (plan.shard = 0; plan.shard < 3; ++plan.shard)
    for (const auto& [key, finding] : results_of(plan)) CHECK(joined.emplace(key, finding).second);
  CHECK(joined == whole);
}

TEST_CASE("finished cases are skipped, a spent budget stops the campaign") {
  Plan plan = small_plan();
  const auto whole = results_of(plan);
  auto skipped = whole.begin();
  for (int i = 0; i < 7; ++i) plan.finished.insert((skipped++)->first);
  Outcome outcome;
  CHECK(results_of(plan, &outcome).size() == whole.size() - 7);
  CHECK(outcome.skipped == 7);
  plan.finished.clear();
  plan.time_budget = 0;
  CHECK(results_of(plan, &outcome).empty());
  CHECK(outcome.stopped);
  CHECK(outcome.planned == whole.size());
}

TEST_CASE("a failure is announced unshrunk, then reported with a simpler case that still fails") {
  const Kernel kernel = silent_kernel();
  Plan plan = small_plan();
  plan.kernels = {&kernel};
  plan.properties.resize(1);
  plan.regimes.resize(1);
  plan.shrink_seconds = 1;
  std::vector<std::string> announced;
  plan.on_failure = [&](const CaseResult& failure) {
    announced.push_back(failure.replay);
    CHECK(failure.shrunk.empty());
  };
  std::vector<CaseResult> failures;
  run_campaign(plan, [&](const CaseResult& result) {
    if (is_failure(result.finding.verdict)) failures.push_back(result);
  });
  REQUIRE(announced.size() == 1);
  const auto shrunk = std::find_if(failures.begin(), failures.end(), [](const CaseResult& failure) { return !failure.shrunk.empty(); });
  REQUIRE(shrunk != failures.end());
  CHECK(shrunk->replay == announced.front());
  const Replay simplest = replay_from_token(shrunk->shrunk);
  const Recipe drawn = replay_from_token(shrunk->replay).recipe;
  CHECK(simplest.recipe.shape.T <= drawn.shape.T);
  CHECK(simplest.recipe.shape.K * simplest.recipe.shape.V < drawn.shape.K * drawn.shape.V);
  Judge judge;
  CHECK(is_failure(run_case(kernel, *plan.properties.front(), simplest.recipe, judge).finding.verdict));
}

TEST_CASE("a kernel that has failed is left alone when asked") {
  const Kernel kernel = silent_kernel();
  Plan plan = small_plan();
  plan.kernels.push_back(&kernel);
  plan.drop_failed_kernels = true;
  plan.threads = 1;
  std::map<std::string, int> failures;
  run_campaign(plan, [&](const CaseResult& result) { failures[result.kernel] += is_failure(result.finding.verdict) ? 1 : 0; });
  CHECK(failures[kernel.name] == 1);
}

TEST_CASE("what a kernel's process does becomes a verdict") {
  Kernel kernel = silent_kernel();
  Judge judge;
  const Property& property = *small_plan().properties.front();
  const Recipe recipe = fitted(small_plan().regimes.front()->draw(1, Tier::quick), kernel.contract);
  kernel.forward = [](const Inputs&, const Outputs&, std::span<std::byte>) { throw KernelCrashed("the process was killed"); };
  CHECK(run_case(kernel, property, recipe, judge).finding.verdict == Verdict::crashed);
  kernel.forward = [](const Inputs&, const Outputs&, std::span<std::byte>) { throw KernelTimedOut("no answer"); };
  CHECK(run_case(kernel, property, recipe, judge).finding.verdict == Verdict::timed_out);
  std::atomic<int> calls{0}; // also when it happens in a thread that a law has started
  kernel.forward = [&](const Inputs&, const Outputs& out, std::span<std::byte>) {
    if (++calls > 2) throw KernelTimedOut("no answer");
    for (std::int64_t i = 0; i < out.o.elements(); ++i) store(out.o, i, 0);
    for (std::int64_t i = 0; i < out.final_state.elements(); ++i) store(out.final_state, i, 0);
  };
  CHECK(run_case(kernel, *small_plan().properties.back(), recipe, judge).finding.verdict == Verdict::timed_out);
  kernel.forward = [](const Inputs&, const Outputs&, std::span<std::byte>) { throw Refused("not today"); };
  CHECK(run_case(kernel, property, recipe, judge).finding.verdict == Verdict::failed_property);
}

TEST_CASE("a kernel that crashes on every case does not take its time from the others") {
  Kernel kernel = silent_kernel();
  kernel.forward = [](const Inputs&, const Outputs&, std::span<std::byte>) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20)); // to start a process anew
    throw KernelCrashed("the process was killed");
  };
  Plan plan = small_plan();
  plan.kernels = {&kernel};
  plan.threads = 1;
  plan.shrink_seconds = 0.1;
  std::vector<std::pair<std::string, double>> told;
  plan.on_unshrunk = [&](const std::string& name, double seconds) { told.emplace_back(name, seconds); };
  std::size_t crashes = 0, simpler = 0;
  run_campaign(plan, [&](const CaseResult& result) {
    ++crashes, simpler += !result.shrunk.empty();
    CHECK(result.finding.verdict == Verdict::crashed);
    CHECK(replay_from_token(result.replay).kernel == kernel.name);
  });
  CHECK(crashes >= 10);
  CHECK(simpler >= 1);
  CHECK(simpler <= 5); // one of every law and regime without an end to it
  REQUIRE(told.size() == 1);
  CHECK(told[0].first == kernel.name);
  CHECK(told[0].second >= crashes_shrunk_for * plan.shrink_seconds);
  CHECK(told[0].second < (crashes_shrunk_for + 2) * plan.shrink_seconds);
}

TEST_CASE("a call that is given up ends the campaign and is no case") {
  Kernel kernel = silent_kernel();
  std::atomic<int> calls{0};
  kernel.forward = [&](const Inputs&, const Outputs&, std::span<std::byte>) {
    if (++calls > 3) throw CallAbandoned{};
    throw KernelCrashed("the process was killed");
  };
  Plan plan = small_plan();
  plan.kernels = {&kernel};
  plan.threads = 1;
  std::size_t cases = 0;
  const Outcome outcome = run_campaign(plan, [&](const CaseResult& result) {
    ++cases;
    CHECK(result.finding.verdict == Verdict::crashed);
  });
  CHECK(cases == 3);
  CHECK(outcome.ran == 3);
  CHECK(outcome.stopped);
}
