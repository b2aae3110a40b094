#include "../judge.hpp"
#include "drawn_problem.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

using namespace kdacheck;
using namespace kdacheck::testing;

namespace {

std::size_t index(Input input) { return static_cast<std::size_t>(input); }

Run right_by_construction(const Problem& problem) {
  const Truth truth = gradient_truth(problem, Arithmetic::double_double);
  Run run;
  for (Input input : all_inputs)
    for (double x : truth[input].value) run.gradient[index(input)].push_back(static_cast<float>(x));
  return run;
}

constexpr std::array kda_inputs{Input::q, Input::k, Input::v, Input::g, Input::beta, Input::initial_state};

} // namespace

TEST_CASE("the true gradients, rounded, pass with nothing to spare used") {
  Judge judge;
  const Problem problem = draw({});
  const Finding finding = judge.backward({}, problem, right_by_construction(problem));
  INFO(finding.detail);
  CHECK(finding.verdict == Verdict::passed);
  CHECK(finding.bound_util < 1e-6);
}

TEST_CASE("an error of any gradient is refused far beyond its budget and passes within it") {
  Judge judge;
  const Problem problem = draw({});
  Contract contract;
  contract.operands = contract.scores = Format::bf16;
  contract.chunk = 16;
  const Run right = right_by_construction(problem);
  const Budget budget = gradient_budget(contract, problem, gradient_truth(problem), 1, 8);
  for (Input input : kda_inputs) {
    const std::vector<double>& sigma = budget.gradient[index(input)].fine;
    const std::size_t width = right.gradient[index(input)].size() / sigma.size(), group = 9;
    const auto verdict = [&](double times) {
      Run run = right;
      for (std::size_t i = group * width; i < (group + 1) * width; ++i)
        run.gradient[index(input)][i] += static_cast<float>((i % 2 ? -1 : 1) * times * sigma[group]);
      return judge.backward(contract, problem, run);
    };
    INFO("d" << name(input));
    CHECK(verdict(1).verdict == Verdict::passed);
    const Finding beyond = verdict(15);
    CHECK(beyond.verdict == Verdict::failed_statistical);
    REQUIRE(beyond.place);
    CHECK(beyond.place->tensor == "d" + std::string(name(input)));
    if (input != Input::initial_state) CHECK(beyond.place->token == 9);
  }
}

TEST_CASE("a gradient that is not finite, of the wrong size, or missing altogether is refused") {
  Judge judge;
  const Problem problem = draw({});
  for (Input input : kda_inputs) {
    INFO("d" << name(input));
    Run run = right_by_construction(problem);
    run.gradient[index(input)][11] = std::numeric_limits<float>::quiet_NaN();
    CHECK(judge.backward({}, problem, run).verdict == Verdict::failed_proved);
    run.gradient[index(input)].pop_back();
    CHECK(judge.backward({}, problem, run).verdict == Verdict::failed_property);
  }
  CHECK(judge.backward({}, problem, {}).verdict == Verdict::failed_property);
}
