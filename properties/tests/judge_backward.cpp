#include "../judge.hpp"
#include "drawn_problem.hpp"

#include <algorithm>
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

TEST_CASE("a chunk may be worked through in blocks of 16: near a fixed point dbeta of a block's first token errs by as much as theirs") {
  Problem problem = draw({.shape = {.B = 1, .T = 81, .H = 1, .HV = 1, .K = 16, .V = 16},
                          .decay = 1e-3,
                          .state = false,
                          .formats = {Format::fp16, Format::fp32, Format::fp32}});
  const auto repeat = [](std::vector<float>& x) { // every token the first one
    const std::size_t width = x.size() / 81;
    for (std::size_t i = width; i < x.size(); ++i) x[i] = x[i - width];
  };
  for (std::vector<float>* x : {&problem.q, &problem.k, &problem.v, &problem.g, &problem.beta}) repeat(*x);
  std::ranges::fill(problem.beta, 0.43f);
  std::ranges::fill(problem.d_o, 0.0f); // a loss on the final state alone
  Contract whole;
  whole.input = Format::fp16, whole.operands = whole.scores = Format::bf16;
  whole.order = Order::residual_first;
  Contract blocks = whole;
  blocks.chunk = 16;
  const Truth truth = gradient_truth(problem);
  const auto sigma = [&](const Contract& contract) {
    return gradient_budget(contract, problem, truth, 1, 32).gradient[index(Input::beta)].fine[80];
  };
  INFO("a chunk of 64: " << sigma(whole) << ", of 16: " << sigma(blocks));
  CHECK(sigma(whole) >= sigma(blocks));
}
