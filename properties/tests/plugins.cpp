#include "../../kernels/plugin/plugin_kernels.hpp"
#include "../run.hpp"

#include <catch2/catch.hpp>

#include <signal.h>

#include <cerrno>
#include <cmath>
#include <thread>

using namespace kdacheck;

namespace {

const std::vector<Kernel>& misbehaving() {
  static const auto all = plugin_kernels(KDACHECK_MISBEHAVING_PLUGIN);
  return all;
}

const Kernel& named(const char* name) {
  for (const Kernel& kernel : misbehaving())
    if (kernel.name == name) return kernel;
  throw std::logic_error(name);
}

Problem small_problem() {
  Problem problem;
  problem.shape = {.B = 1, .T = 3, .H = 1, .HV = 2, .K = 2, .V = 3};
  problem.q = {1, 0, 0, 1, 1, 1};
  problem.k = {1, 0, 0, 1, 0, 1};
  problem.v.assign(18, 0.5f);
  problem.g.assign(12, -0.25f);
  problem.beta.assign(6, 0.5f);
  return problem;
}

/// Whether a process is gone, zombies included, within two seconds.
bool gone(int pid) {
  for (int attempt = 0; attempt < 200; ++attempt) {
    if (kill(pid, 0) != 0 && errno == ESRCH) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

} // namespace

TEST_CASE("the example plug-in computes the recurrence in its child process") {
  const auto kernels = plugin_kernels(KDACHECK_EXAMPLE_PLUGIN);
  REQUIRE(kernels.size() == 1);
  CHECK(kernels[0].name == "example.recurrence");
  const Problem problem = small_problem();
  const Run run = run_forward(kernels[0], problem);
  CHECK(run.trespasses.empty());
  REQUIRE(run.o.size() == 18);
  // The first token writes beta v into the channel that its query reads.
  CHECK(run.o[0] == 0.25f);
  // The second reads channel 1, where it has just written the same; channel 0 has decayed.
  CHECK(run.o[6] == 0.25f);
  CHECK(run.final_state[0] == Approx(0.25 * std::exp(-0.5)));
}

TEST_CASE("a decode step of a plug-in moves the state on in place") {
  const auto kernels = plugin_kernels(KDACHECK_EXAMPLE_PLUGIN);
  REQUIRE(kernels.at(0).decode);
  CHECK(kernels[0].contract.decode == SizeRange{1, 4});
  const Problem problem = small_problem();
  const Run whole = run_forward(kernels[0], problem), steps = run_decode(kernels[0], problem);
  CHECK(steps.trespasses.empty());
  CHECK(steps.o == whole.o);
  CHECK(steps.final_state == whole.final_state);
}

TEST_CASE("a library built with version 1 of the interface still loads, every kernel of it") {
  const auto kernels = plugin_kernels(KDACHECK_OLD_PLUGIN);
  REQUIRE(kernels.size() == 2);
  CHECK(kernels[1].name == "old.second");
  CHECK_FALSE(kernels[0].decode);
  CHECK_FALSE(kernels[0].backward);
  CHECK(run_forward(kernels[0], small_problem()).o == std::vector<float>(18, 0.25f));
  CHECK(run_forward(kernels[1], small_problem()).refused == "as in the old days");
}

TEST_CASE("what a plug-in refuses is a refusal with its own sentence") {
  CHECK(run_forward(named("refuses"), small_problem()).refused == "not on a Monday");
}

TEST_CASE("a crash, an exit or an exhausted memory is a crash, and the next call is answered") {
  for (const char* name : {"segfault", "aborts", "leaves", "eats_memory", "kills_its_group"}) {
    INFO(name);
    CHECK_THROWS_AS(run_forward(named(name), small_problem()), KernelCrashed);
  }
  CHECK(run_forward(named("refuses"), small_problem()).refused);
}

TEST_CASE("a hang ends as a time-out") {
  int hung = 0;
  for (const Kernel& kernel : plugin_kernels(KDACHECK_MISBEHAVING_PLUGIN, {.patience = std::chrono::milliseconds(400)}))
    if (kernel.name == "hangs" || kernel.name == "stops_itself" || kernel.name == "leaves_a_daemon_and_hangs") {
      INFO(kernel.name);
      CHECK_THROWS_AS(run_forward(kernel, small_problem()), KernelTimedOut);
      ++hung;
    }
  CHECK(hung == 3);
}

TEST_CASE("a daemon in a session of its own ends with the process that it came from") {
  int daemon = 0;
  {
    const auto kernels = plugin_kernels(KDACHECK_MISBEHAVING_PLUGIN);
    for (const Kernel& kernel : kernels)
      if (kernel.name == "leaves_a_daemon") daemon = static_cast<int>(run_forward(kernel, small_problem()).o.at(0));
    REQUIRE(daemon > 1);
    CHECK(kill(daemon, 0) == 0);
  }
  CHECK(gone(daemon));
}

TEST_CASE("a flood of output does no harm, closed pipes end the process") {
  CHECK(run_forward(named("floods"), small_problem()).o == std::vector<float>(18, 0.0f));
  CHECK_THROWS_AS(run_forward(named("closes_pipes"), small_problem()), KernelCrashed);
}

TEST_CASE("writes outside the outputs and into the inputs are seen from outside the process") {
  CHECK(run_forward(named("writes_past_end"), small_problem()).trespasses.size() == 1);
  CHECK(run_forward(named("writes_before_start"), small_problem()).trespasses.size() == 1);
  CHECK(run_forward(named("changes_input"), small_problem()).trespasses.size() == 1);
  Problem packed = small_problem();
  packed.cu_seqlens = {0, packed.shape.T};
  CHECK(run_forward(named("changes_lengths"), packed).trespasses == std::vector<std::string>{"changed cu_seqlens"});
}

TEST_CASE("a kernel that leaves another rounding behind does not fail its neighbour in the library") {
  const auto kernels = plugin_kernels(KDACHECK_MISBEHAVING_PLUGIN);
  const auto of = [&](std::string_view name) -> const Kernel& { return *std::ranges::find(kernels, name, &Kernel::name); };
  for (int i = 0; i < 4; ++i) { // one call at a time: both are served by the same process
    run_forward(of("leaves_rounding_up"), small_problem());
    CHECK(run_forward(of("tells_rounding"), small_problem()).o.at(0) == 1.0f);
  }
}

TEST_CASE("outputs that a plug-in does not write keep the poison") {
  for (const float value : run_forward(named("writes_nothing"), small_problem()).o) CHECK(std::isnan(value));
}

TEST_CASE("superfluous answers do not shift the answers to later calls") {
  for (int i = 0; i < 8; ++i) {
    try {
      run_forward(named("wrong_answer"), small_problem());
      FAIL("taken for an answer");
    } catch (const KernelCrashed& crash) {
      CHECK(std::string(crash.what()) == "the process answered more often than it was asked");
    }
    CHECK(run_forward(named("refuses"), small_problem()).refused == "not on a Monday");
  }
}

TEST_CASE("a file that is no plug-in is refused with a sentence") {
  CHECK_THROWS_AS(plugin_kernels("/nonexistent.so"), PluginTrouble);
  CHECK_THROWS_AS(plugin_kernels(KDACHECK_WORKER), PluginTrouble);
}
