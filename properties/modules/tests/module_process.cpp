// A module that crashes, hangs or floods its memory is a verdict with a sentence; cases before and behind it are judged.

#include "../module_campaign.hpp"

#include <catch2/catch.hpp>

#include <signal.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <map>
#include <thread>

using namespace kdacheck;
using namespace std::chrono_literals;

namespace {

ModuleCase draw_nothing(std::string_view, std::uint64_t) { return {}; }

Finding finds_everything(const ModuleCase&, std::uint64_t seed) {
  return {.verdict = Verdict::failed_statistical,
          .bound_util = std::numeric_limits<double>::quiet_NaN(),
          .place = Place{.tensor = "dq", .sequence = 1, .head = 2, .token = 3, .channel = 4, .row = 5, .chunk_position = 6},
          .detail = std::string(100'000, 'x') + std::to_string(seed),
          .metrics = {.max_abs_err = 0.1, .rms_rel_err = 0.2, .token_rel_err_max = 0.3, .ulp_max = 1e300},
          .oracle = "226 bits"};
}
Finding passes(const ModuleCase&, std::uint64_t) { return {}; }
Finding hangs(const ModuleCase&, std::uint64_t) {
  for (;;) std::this_thread::sleep_for(1s);
}
Finding is_killed(const ModuleCase&, std::uint64_t) {
  raise(SIGSEGV);
  return {};
}
Finding aborts(const ModuleCase&, std::uint64_t) { std::abort(); }
Finding exits(const ModuleCase&, std::uint64_t) { std::exit(3); }
Finding throws(const ModuleCase&, std::uint64_t) { throw std::runtime_error("no luck"); }
Finding uses_threads(const ModuleCase&, std::uint64_t) {
  std::atomic<int> sum = 0;
#pragma omp parallel for num_threads(3)
  for (int i = 0; i < 100; ++i) sum += i;
  return sum == 4950 ? Finding{} : finds_everything({}, 0);
}

const ModuleSuite& misbehaving() {
  static const ModuleSuite suite{.name = "Misbehaving",
                                 .summary = "",
                                 .source = "",
                                 .regimes = {{"first", ""}, {"second", ""}},
                                 .laws = {{"passes", "", false, passes},
                                          {"is-killed", "", false, is_killed},
                                          {"finds-everything", "", true, finds_everything},
                                          {"hangs", "", false, hangs},
                                          {"aborts", "", false, aborts},
                                          {"exits", "", false, exits},
                                          {"throws", "", false, throws},
                                          {"uses-threads", "", false, uses_threads}},
                                 .faults = {{"planted", "", ""}},
                                 .draw = draw_nothing};
  return suite;
}

ModuleCaseChoice choice(const std::string& law) {
  const ModuleSuite& suite = misbehaving();
  for (const ModuleLaw& one : suite.laws)
    if (one.name == law) return {.suite = &suite, .law = &one, .regime = &suite.regimes[0], .fault = nullptr, .seed = 7};
  throw std::logic_error(law);
}

bool same(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }

} // namespace

TEST_CASE("a finding comes back whole from its process") {
  const ModuleCaseResult result = run_in_a_process(choice("finds-everything"));
  Finding wanted = finds_everything({}, 7);
  wanted.verdict = Verdict::not_supported; // it has no backward pass
  CHECK(result.finding.verdict == Verdict::not_supported);
  ModuleLaw law = *choice("finds-everything").law;
  law.backward = false;
  ModuleCaseChoice whole = choice("finds-everything");
  whole.law = &law;
  const Finding found = run_in_a_process(whole).finding;
  wanted = finds_everything({}, 7);
  CHECK(found.verdict == wanted.verdict);
  CHECK(same(found.bound_util, wanted.bound_util));
  CHECK(found.place == wanted.place);
  CHECK(found.detail == wanted.detail);
  CHECK(found.metrics == wanted.metrics);
  CHECK(found.oracle == wanted.oracle);
}

TEST_CASE("crashes and hangs of a module are verdicts, and the next case is judged") {
  // The main thread has a team of OpenMP by now, whose threads are not copied.
#pragma omp parallel num_threads(3)
  {}
  ModulePlan plan{.suites = {&misbehaving()}, .laws = {}, .regimes = {}, .patience = 300ms};
  for (const int threads : {1, 3}) {
    plan.threads = threads;
    std::map<std::string, std::vector<Finding>> found;
    const Outcome outcome =
        run_module_campaign(plan, {}, [&](const CaseResult& result) { found[result.property].push_back(result.finding); });
    CHECK(outcome.ran == 16);
    CHECK_FALSE(outcome.stopped);
    const std::map<std::string, std::pair<Verdict, std::string>> wanted{
        {"passes", {Verdict::passed, ""}},
        {"is-killed", {Verdict::crashed, "its process was killed by signal 11"}},
        {"finds-everything", {Verdict::not_supported, "no backward pass"}},
        {"hangs", {Verdict::timed_out, "it did not end within 0.3 s"}},
        {"aborts", {Verdict::crashed, "its process was killed by signal 6"}},
        {"exits", {Verdict::crashed, "its process ended with status 3"}},
        {"throws", {Verdict::crashed, "it threw: no luck"}},
        {"uses-threads", {Verdict::passed, ""}}};
    for (const auto& [law, due] : wanted) {
      REQUIRE(found[law].size() == 2);
      for (const Finding& finding : found[law]) {
        INFO(law << ": " << finding.detail);
        CHECK(finding.verdict == due.first);
        CHECK(finding.detail.find(due.second) != std::string::npos);
      }
    }
  }
}

TEST_CASE("a run that is to stop waits for a hung module no longer than some seconds, and leaves its case out") {
  const auto started = std::chrono::steady_clock::now();
  const ModulePlan plan{.suites = {&misbehaving()}, .laws = {"hangs"}, .regimes = {"first"}};
  const auto one_second = [&] { return std::chrono::steady_clock::now() - started > 1s; };
  const Outcome outcome = run_module_campaign(
      plan, {}, [](const CaseResult&) { FAIL("it did not end"); }, one_second);
  CHECK(outcome.planned == 1);
  CHECK(outcome.ran == 0);
  CHECK(outcome.stopped);
  CHECK(std::chrono::steady_clock::now() - started < 60s);
}

TEST_CASE("a planted fault that hangs or crashes is caught, and a module that does is refused") {
  ModulePlan plan{.suites = {&misbehaving()}, .laws = {"hangs", "is-killed"}, .regimes = {"first"}, .threads = 2, .patience = 300ms};
  const Power power = module_power(plan, {}, true);
  REQUIRE(power.faults.size() == 1);
  CHECK(power.faults[0].caught_by.size() == 2);
  REQUIRE(power.correct.size() == 1);
  CHECK(power.correct[0].rejected == 2);
}
