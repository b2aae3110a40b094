// Kernels that would pass if each case were looked at alone and once. Every cheat must be caught by some law of the gate, on
// every route that it can come by.

#include "../../kernels/plugin/subprocess_kernels.hpp"
#include "../campaign.hpp"

#include <catch2/catch.hpp>

#include <cstdlib>
#include <string>
#include <utility>

using namespace kdacheck;

namespace {

/// What the forward laws say of a kernel on a few cases of usual decay: the first failure, or how many passed.
struct Judged {
  int passed = 0;
  std::string failure; ///< "LAW: detail"
};

Judged judged(const Kernel& kernel) {
  static Judge judge;
  Judged result;
  for (std::uint64_t seed = 1; seed <= 2; ++seed)
    for (const Property& law : properties()) {
      if (law.direction != Direction::forward || !law.regimes.empty() || law.name == "long-runs-stay-right") continue;
      const Recipe recipe = fitted(regime_named("usual-decay")->draw(seed, Tier::quick), kernel.contract);
      const CaseResult one = run_case(kernel, law, recipe, judge);
      result.passed += one.finding.verdict == Verdict::passed;
      if (is_failure(one.finding.verdict)) {
        result.failure = law.name + ": " + one.finding.detail;
        return result;
      }
    }
  return result;
}

void catches_every_cheat(const std::vector<Kernel>& kernels, int cheats) {
  for (const Kernel& kernel : kernels) {
    const Judged result = judged(kernel);
    INFO(kernel.name << " " << result.failure);
    const bool honest = kernel.name.ends_with("honest");
    CHECK(result.failure.empty() == honest);
    if (honest) CHECK(result.passed > 20);
    cheats -= !honest;
  }
  CHECK(cheats == 0);
}

} // namespace

TEST_CASE("every cheat of a shared library is caught, and the same kernel without it passes") {
  catches_every_cheat(plugin_kernels(KDACHECK_CHEATING_PLUGIN), 4);
}

TEST_CASE("every cheat of a Python function is caught, and the same function without it passes") {
  REQUIRE(std::system("python3 -c 'import numpy' 2>/dev/null") == 0);
  setenv("PYTHONPATH", KDACHECK_PYTHON_TESTS, 1);
  std::vector<Kernel> kernels;
  for (const char* way : {"honest", "caches_by_pointer", "returns_the_last", "changes_an_input", "returns_an_input", "writes_no_state"})
    kernels.push_back(python_kernels(std::string("cheating_kernels:") + way).at(0));
  catches_every_cheat(kernels, 5);
}

TEST_CASE("every cheat of a worker program is caught with its verdict, and the same program without it passes") {
  REQUIRE(std::system("python3 -c 'import numpy' 2>/dev/null") == 0);
  const std::pair<const char*, const char*> ways[] = {{"honest", ""},
                                                      {"changes_an_input", "changed its problem file"},
                                                      {"removes_the_problem", "changed its problem file"},
                                                      {"links_to_the_input", "changed its problem file"},
                                                      {"result_is_a_link", "gave a link to another file as its result"},
                                                      {"caches_by_file", ""},
                                                      {"returns_the_last", ""},
                                                      {"keeps_the_file", ""},
                                                      {"writes_no_state", ""},
                                                      {"writes_nothing", "wrong answer"}};
  for (const auto& [way, sentence] : ways) {
    const std::string word = way;
    const Kernel kernel = subprocess_kernels("python3 " KDACHECK_CHEATING_WORKER " " + word).at(0);
    const Judged result = judged(kernel);
    INFO(word << " " << result.failure);
    CHECK(result.failure.empty() == (word == "honest"));
    CHECK(result.failure.find(sentence) != std::string::npos);
    if (word == "honest") CHECK(result.passed > 20);
  }
}
