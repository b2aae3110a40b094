// Whatever a foreign kernel does to its process or its machine is a verdict on it, by every route, and the next case is judged by
// a fresh process. What must be left of it, nothing, is for reports/tests/interruption.cpp.

#include "../../kernels/plugin/subprocess_kernels.hpp"
#include "../campaign.hpp"
#include "checked.hpp"

#include <catch2/catch.hpp>

#include <dirent.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <map>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

using namespace kdacheck;
using namespace kdacheck::tests;

namespace {

Kernel by_c(const std::string& way, PluginOptions options = {}) {
  for (Kernel& kernel : plugin_kernels(KDACHECK_MISBEHAVING_PLUGIN, options))
    if (kernel.name == way) return kernel;
  throw std::logic_error(way);
}

Kernel by_worker(const std::string& way, PluginOptions options = {}) {
  return subprocess_kernels("python3 " KDACHECK_MISBEHAVING_WORKER " " + way, options).at(0);
}

Kernel by_python(const std::string& way, PluginOptions options = {}) {
  setenv("PYTHONPATH", KDACHECK_PYTHON_TESTS, 1);
  return python_kernels("misbehaving_kernels:" + way, options).at(0);
}

Finding verdict_on(const Kernel& kernel, const char* law = "agrees-with-the-oracle") {
  static Judge judge;
  return run_case(kernel, property_named(law), fitted(regime_named("usual-decay")->draw(3, Tier::quick), kernel.contract), judge).finding;
}

/// Every way is a crash, whose sentence holds what is due, once and again: the second time by a fresh process.
template <class Route> void crashes(const Route& route, const std::map<std::string, std::string>& ways) {
  for (const auto& [way, words] : ways) {
    const Kernel kernel = route(way, PluginOptions{});
    for (int time = 0; time < 2; ++time) {
      const Finding finding = verdict_on(kernel);
      INFO(way << ": " << finding.detail);
      CHECK(finding.verdict == Verdict::crashed);
      CHECK(finding.detail.find(words) != std::string::npos);
    }
  }
}

/// A worker may have a fourth of a gibibyte while this lives.
struct LittleMemory {
  LittleMemory() { setenv("KDACHECK_WORKER_GIB", "0.25", 1); }
  LittleMemory(const LittleMemory&) = delete;
  LittleMemory& operator=(const LittleMemory&) = delete;
  ~LittleMemory() { unsetenv("KDACHECK_WORKER_GIB"); }
};

/// Processes whose ancestor is this one, zombies included.
int processes_below() {
  std::multimap<int, int> children;
  DIR* all = opendir("/proc");
  REQUIRE(all != nullptr);
  while (const dirent* entry = readdir(all)) {
    std::ifstream file(std::string("/proc/") + entry->d_name + "/stat");
    std::string text;
    if (entry->d_name[0] < '1' || entry->d_name[0] > '9' || !std::getline(file, text)) continue;
    children.emplace(std::atoi(text.c_str() + text.rfind(')') + 4), std::atoi(entry->d_name));
  }
  closedir(all);
  int count = 0;
  std::vector<int> parents{getpid()};
  while (!parents.empty()) {
    const auto [first, last] = children.equal_range(parents.back());
    parents.pop_back();
    for (auto child = first; child != last; ++child) ++count, parents.push_back(child->second);
  }
  return count;
}

} // namespace

TEST_CASE("a shared library that ends or breaks its process has crashed") {
  crashes(by_c, {{"segfault", "signal 11"},
                 {"aborts", "signal 6"},
                 {"leaves", "status 3"},
                 {"kills_its_group", "signal 9"},
                 {"closes_pipes", "ended with status 0"}}); // serving ends where there is nothing to read from
  CHECK(is_failure(verdict_on(by_c("scribbles")).verdict)); // over what the call is described by
}

TEST_CASE("a worker program that ends or breaks the protocol has crashed") {
  crashes(by_worker, {{"segfaults", "signal 11"},
                      {"aborts", "signal 6"},
                      {"exits", "status 7"},
                      {"closes_pipes", "closed its pipes"},
                      {"noise", "no JSON object"},
                      {"deep", "no JSON object"},
                      {"long_line", "more than 1 MiB"},
                      {"endless_result", "one of more than"},
                      {"result_is_a_pipe", "the result is no file"}});
}

TEST_CASE("a worker that gives a link, or takes the problem away, breaks the law, and leaves nothing that another could judge") {
  for (const auto& [way, sentence] :
       {std::pair("result_is_a_device", "gave a link to another file as its result"),
        std::pair("problem_is_a_pipe", "changed its problem file"), std::pair("removes_its_folder", "changed its problem file")})
    for (const char* law : {"agrees-with-the-oracle", "nothing-else-is-touched"}) {
      const Finding finding = verdict_on(by_worker(way), law);
      INFO(way << ", " << law << ": " << finding.detail);
      CHECK(finding.verdict == Verdict::failed_property);
      CHECK(finding.detail == sentence);
    }
}

TEST_CASE("a trespass that a worker reports fails the law about it with its own sentence, whatever else it answers") {
  for (const char* way : {"trespass", "trespass_alone", "trespass_and_refusal"}) {
    const Finding touched = verdict_on(by_worker(way), "nothing-else-is-touched"),
                  inputs = verdict_on(by_worker(way), "inputs-are-unchanged");
    INFO(way << ": " << touched.detail << " / " << inputs.detail);
    CHECK(touched.verdict == Verdict::failed_property);
    CHECK(touched.detail == "changed input k");
    CHECK(inputs.verdict == Verdict::failed_property);
    CHECK(inputs.detail == "changed input k");
  }
}

TEST_CASE("a Python function that ends or breaks its process has crashed") {
  crashes(by_python, {{"segfaults", "signal 11"},
                      {"aborts", "signal 6"},
                      {"exits", "status 3"},
                      {"leaves", "status 0"},
                      {"closes_pipes", "closed its pipes"},
                      {"returns_rubbish", "TypeError: a result is of type object"},
                      {"raises_value_error", "ValueError: no"},
                      {"raises_index_error", "IndexError"},
                      {"fails_an_assertion", "AssertionError"},
                      {"returns_no_state", "returned no final state"},
                      {"returns_three", "ValueError"}});
}

TEST_CASE("a worker that takes memory without end has crashed, however it takes it") {
  const LittleMemory limit;
  const std::string due = "took more than the 0.25 GiB of memory that a worker may have";
  crashes(by_c, {{"touches_memory", due}, {"touches_shared_memory", due}, {"touches_memory_together", due}});
  crashes(by_worker, {{"touches_memory", due}, {"fills_its_folder", ""}});
  crashes(by_python, {{"touches_memory", due}, {"recurses", due}});
}

TEST_CASE("a hang is a time-out by every route") {
  const PluginOptions hurried{.patience = std::chrono::milliseconds(300)};
  for (const Kernel& kernel : {by_c("hangs", hurried), by_worker("hangs", hurried), by_python("hangs", hurried)}) {
    INFO(kernel.name);
    CHECK(verdict_on(kernel).verdict == Verdict::timed_out);
  }
}

TEST_CASE("the time that a process takes to start is not that of a call") {
  const Kernel kernel = by_worker("starts_slowly", {.patience = std::chrono::milliseconds(2500)});
  CHECK(verdict_on(kernel).verdict == Verdict::crashed); // it writes no result, in time
  CHECK(verdict_on(kernel).verdict == Verdict::crashed); // by a fresh process
}

TEST_CASE("a process that does not start in time is a sentence that names the option") {
  try {
    by_worker("never_starts", {.start_patience = std::chrono::milliseconds(300)});
    FAIL("it started");
  } catch (const PluginTrouble& trouble) {
    CHECK(std::string(trouble.what()).ends_with("did not start within 0.3 s (--start-timeout)"));
    CHECK(trouble.fault == PluginTrouble::Fault::slow);
  }
}

TEST_CASE("output without end does no harm by any route") {
  for (const Kernel& kernel : {by_c("floods"), by_python("floods")}) {
    const Finding finding = verdict_on(kernel);
    INFO(kernel.name << ": " << finding.detail);
    CHECK(finding.verdict != Verdict::crashed);
    CHECK(finding.verdict != Verdict::timed_out);
  }
  CHECK(verdict_on(by_worker("floods")).detail.ends_with("after a flood"));
}

TEST_CASE("the memory of a call cannot be shortened under the gate") {
  CHECK(verdict_on(by_c("shortens_the_call")).detail.ends_with("not shortened"));
}

// It is seen at once, or when the kernel is called next.
TEST_CASE("an answer that nobody asked for is a crash that says so, by every route") {
  const std::string due = "nobody asked for";
  const std::pair<Kernel, std::string> kernels[] = {{by_worker("answers_twice"), due},         {by_worker("answers_unasked"), due},
                                                    {by_worker("answers_too_early"), due},     {by_python("answers_itself"), due},
                                                    {by_python("answers_later"), due},         {by_c("answers_itself"), "more often than"},
                                                    {by_c("answers_later"), "more often than"}};
  for (const auto& [kernel, words] : kernels) {
    int named = 0;
    for (int call = 0; call < 4; ++call) {
      const Finding finding = verdict_on(kernel);
      INFO(kernel.name << ": " << finding.detail);
      named += finding.verdict == Verdict::crashed && finding.detail.find(words) != std::string::npos;
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
    }
    INFO(kernel.name);
    CHECK(named >= 2);
  }
}

TEST_CASE("a process that ends when it has answered has crashed, and its neighbour in the library has not") {
  const std::vector<Kernel> kernels = plugin_kernels(KDACHECK_MISBEHAVING_PLUGIN);
  const auto of = [&](std::string_view name) -> const Kernel& { return *std::ranges::find(kernels, name, &Kernel::name); };
  int named = 0;
  for (int call = 0; call < 4; ++call) { // it answers, is told so, answers by a fresh process, is told so
    named += verdict_on(of("ends_later")).detail.starts_with("after its answer the process was killed by signal 11");
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    CHECK(verdict_on(of("refuses")).detail.ends_with("not on a Monday"));
  }
  CHECK(named == 2);
}

TEST_CASE("a sentence of any bytes is one that a report can hold") {
  CHECK(verdict_on(by_c("refuses_in_bytes")).detail.ends_with("no ??? text "));
}

TEST_CASE("a campaign goes on after a crash, and judges every other case as if nothing had been") {
  Judge judge;
  const Kernel kernel = by_c("crashes_now_and_then");
  std::map<Verdict, int> count;
  for (std::uint64_t seed = 1; seed <= 12; ++seed) {
    Recipe recipe = fitted(regime_named("usual-decay")->draw(seed, Tier::quick), kernel.contract);
    recipe.shape.T = 4 + static_cast<std::int64_t>(seed % 3);
    const CaseResult one = run_case(kernel, property_named("agrees-with-the-oracle"), recipe, judge);
    INFO(one.finding.detail);
    CHECK((one.finding.verdict == Verdict::crashed) == (recipe.shape.T % 2 == 1));
    CHECK(replay_from_token(one.replay).recipe.shape.T == recipe.shape.T);
    ++count[one.finding.verdict];
  }
  CHECK(count[Verdict::crashed] == 4);
}

TEST_CASE("children that nobody waited for end with the worker, zombies too") {
  REQUIRE(processes_below() == 0);
  {
    const Kernel kernels[] = {by_c("leaves_zombies"), by_worker("leaves_zombies"), by_python("leaves_zombies")};
    for (const Kernel& kernel : kernels) verdict_on(kernel);
    CHECK(processes_below() >= 3 * 3); // supervisor, worker, the child that goes on
  }
  CHECK(processes_below() == 0);
}

TEST_CASE("what a kernel changes of its process is put back before the next call") {
  const std::string python = "env PYTHONPATH='" KDACHECK_PYTHON_PACKAGE ":" KDACHECK_PYTHON_TESTS "' python3 -m kdacheck.worker ";
  const std::vector<Kernel> routes[] = {plugin_kernels(KDACHECK_MISBEHAVING_PLUGIN),
                                        subprocess_kernels(python + "state_kernels:disturbs state_kernels:describes")};
  for (const std::vector<Kernel>& kernels : routes) {
    const auto of = [&](std::string_view part) -> const Kernel& {
      return *std::ranges::find_if(kernels, [&](const Kernel& kernel) { return kernel.name.find(part) != std::string::npos; });
    };
    const std::string before = verdict_on(of("describes")).detail, disturbance = verdict_on(of("disturbs")).detail,
                      after = verdict_on(of("describes")).detail;
    INFO(disturbance);
    CHECK(before.size() > 60);
    CHECK(after == before);
    CHECK(disturbance.find("without a reason") == std::string::npos); // which would say that it could not
  }
}
