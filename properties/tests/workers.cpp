#include "../../kernels/plugin/child_process.hpp"
#include "../../kernels/plugin/subprocess_kernels.hpp"
#include "../run.hpp"

#include <catch2/catch.hpp>

#include <signal.h>

#include <cerrno>
#include <cstdlib>
#include <memory>
#include <thread>

using namespace kdacheck;

namespace {

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

Kernel misbehaving(const std::string& way, int milliseconds = 20000) {
  return subprocess_kernels("python3 " KDACHECK_MISBEHAVING_WORKER " " + way, {.patience = std::chrono::milliseconds(milliseconds)}).at(0);
}

/// `o` alone is asked for: the misbehaving worker knows no final state.
Run run(const Kernel& kernel) { return run_forward(kernel, small_problem(), {.final_state = false}); }

bool has_numpy() { return std::system("python3 -c 'import numpy' 2>/dev/null") == 0; }

} // namespace

TEST_CASE("the reference worker in NumPy computes the recurrence") {
  REQUIRE(has_numpy());
  const auto kernels = subprocess_kernels("python3 " KDACHECK_NUMPY_WORKER);
  REQUIRE(kernels.size() == 1);
  const Run result = run_forward(kernels[0], small_problem());
  CHECK(result.o.at(0) == 0.25f);
  CHECK(result.final_state.at(0) == Approx(0.25 * std::exp(-0.5)));
}

TEST_CASE("a Python function is called by keyword and judged as it declares") {
  REQUIRE(has_numpy());
  setenv("PYTHONPATH", KDACHECK_PYTHON_TESTS, 1);
  const auto kernels = python_kernels("python_kernels:good");
  REQUIRE(kernels.size() == 1);
  CHECK(kernels[0].name == "tests.good");
  CHECK(kernels[0].contract.chunk == 1);
  CHECK(run_forward(kernels[0], small_problem()).o.at(0) == 0.25f);
  const auto by_dictionary = python_kernels("python_kernels:declared_by_a_dictionary");
  CHECK(by_dictionary.at(0).name == "tests.dictionary");
  CHECK(by_dictionary.at(0).contract == kernels.at(0).contract);
  const Run changed = run_forward(python_kernels("python_kernels:changes_its_input").at(0), small_problem());
  REQUIRE(changed.trespasses.size() == 1);
  CHECK(changed.trespasses[0] == "changed input k");
  const Run aliased = run_forward(python_kernels("python_kernels:returns_its_input").at(0), small_problem());
  REQUIRE(aliased.trespasses.size() == 1);
  CHECK(aliased.trespasses[0] == "o shares memory with input v");
  CHECK(run_forward(python_kernels("python_kernels:refuses").at(0), small_problem()).refused == "not on a Monday");
  CHECK(run_forward(python_kernels("python_kernels:refuses_as_declared").at(0), small_problem()).refused == "ValueError: no");
  CHECK_THROWS_AS(run_forward(python_kernels("python_kernels:raises").at(0), small_problem()), KernelCrashed);
  CHECK_THROWS_AS(run_forward(python_kernels("python_kernels:breaks").at(0), small_problem()), KernelCrashed);
  CHECK(run_forward(python_kernels("python_kernels:takes_no_gate").at(0), small_problem()).refused ==
        "tests.takes_no_gate takes no argument 'g'");
  CHECK_THROWS_AS(python_kernels("python_kernels:missing"), PluginTrouble);
  CHECK_THROWS_AS(python_kernels("no_such_module:f"), PluginTrouble);
}

TEST_CASE("a Python backward pass is held to its own memory too") {
  REQUIRE(has_numpy());
  setenv("PYTHONPATH", KDACHECK_PYTHON_TESTS, 1);
  Problem problem = small_problem();
  problem.d_o.assign(18, 0.5f);
  const auto trespasses = [&](const std::string& function) {
    return run_backward(python_kernels("python_kernels:" + function).at(0), problem).trespasses;
  };
  CHECK(trespasses("with_clean_backward").empty());
  CHECK(trespasses("with_changed_cotangent") == std::vector<std::string>{"changed input do"});
  CHECK(trespasses("with_returned_cotangent") == std::vector<std::string>{"dv shares memory with input do"});
}

TEST_CASE("a child outlives the thread that started it") {
  using namespace std::chrono_literals;
  std::unique_ptr<plugin::ChildProcess> child;
  std::string line;
  std::thread([&] {
    child = std::make_unique<plugin::ChildProcess>(std::vector<std::string>{"cat"}, plugin::Channel::standard, std::vector<int>{}, false);
    child->send_line("first");
    child->read_line(line, 10s);
  }).join();
  REQUIRE(line == "first");
  std::this_thread::sleep_for(100ms); // a signal needs a moment to arrive
  CHECK(child->send_line("second"));
  CHECK(child->read_line(line, 10s) == 1);
  CHECK(line == "second");
}

TEST_CASE("refusals and trespasses come through with their sentence") {
  CHECK(run(misbehaving("refuses")).refused == "not on a Monday");
  CHECK(run(misbehaving("floods")).refused == "after a flood");
  CHECK(run(misbehaving("trespass")).trespasses == std::vector<std::string>{"changed input k"});
}

TEST_CASE("whatever breaks the protocol is a crash") {
  for (const char* way : {"error", "no_result", "no_tensor", "wrong_shape", "wrong_type", "truncated", "noise", "long_line", "nothing_said",
                          "exits", "eats_memory", "closes_pipes"}) {
    INFO(way);
    CHECK_THROWS_AS(run(misbehaving(way)), KernelCrashed);
  }
}

TEST_CASE("a worker that hangs is timed out") { CHECK_THROWS_AS(run(misbehaving("hangs", 300)), KernelTimedOut); }

TEST_CASE("a daemon that a worker left in a session of its own ends with it") {
  int daemon = 0;
  {
    const Kernel kernel = misbehaving("leaves_a_daemon");
    daemon = std::stoi(run(kernel).refused.value());
    REQUIRE(daemon > 1);
    CHECK(kill(daemon, 0) == 0);
  }
  int alive = 0;
  for (int attempt = 0; attempt < 200 && (alive = kill(daemon, 0)) == 0; ++attempt)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  CHECK(alive != 0);
  CHECK(errno == ESRCH);
}

TEST_CASE("a worker that cannot introduce itself is refused with a sentence") {
  for (const char* way : {"hello_garbage", "hello_contract", "hello_empty", "hello_dash", "hello_version"}) {
    INFO(way);
    CHECK_THROWS_AS(misbehaving(way), PluginTrouble);
  }
  CHECK_THROWS_AS(subprocess_kernels("true"), PluginTrouble);
  CHECK_THROWS_AS(subprocess_kernels("/no/such/program"), PluginTrouble);
}
