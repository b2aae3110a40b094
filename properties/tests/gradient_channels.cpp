// A fault in one channel of a gradient is a small part of every token: it shows where a channel is taken together over the tokens.

#include "../confidence.hpp"
#include "../judge.hpp"
#include "drawn_problem.hpp"

#include <catch2/catch.hpp>
#include <cmath>

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

/// Two packed sequences, two value heads to one key head.
Problem two_sequences() {
  Drawn drawn;
  drawn.shape = {.B = 1, .T = 80, .H = 1, .HV = 2, .K = 48, .V = 40};
  Problem problem = draw(drawn);
  problem.cu_seqlens = {0, 30, 80};
  problem.initial_state.insert(problem.initial_state.end(), problem.initial_state.begin(), problem.initial_state.end());
  problem.d_final_state.insert(problem.d_final_state.end(), problem.d_final_state.begin(), problem.d_final_state.end());
  REQUIRE(malformed(problem).value_or("") == "");
  return problem;
}

/// Elements of channel 7 of the last head in the second sequence, and their group in GradientBudget::channel.
struct Channel {
  std::vector<std::size_t> elements;
  std::size_t group;
};
Channel channel_of(Input input, const Problem& problem) {
  const auto [first, second, heads, width] = shape_of(input, problem.shape, sequence_count(problem));
  Channel channel{};
  const auto at = [](auto... values) { return static_cast<std::size_t>((values + ...)); };
  if (input == Input::initial_state) { // [N,HV,K,V]: a column
    for (std::int64_t row = 0; row < heads; ++row) channel.elements.push_back(at(((1 * second + second - 1) * heads + row) * width, 7));
    channel.group = at((1 * second + second - 1) * width, 7);
    return channel;
  }
  for (std::int64_t t = 30; t < 80; ++t) channel.elements.push_back(at((t * heads + heads - 1) * width, 7));
  channel.group = at((1 * heads + heads - 1) * width, 7);
  return channel;
}

} // namespace

TEST_CASE("a channel that errs in every token of a gradient is refused where no token is, and passes within its spread") {
  Judge judge;
  const Problem problem = two_sequences();
  Contract contract;
  contract.operands = contract.scores = Format::bf16;
  contract.chunk = 16;
  const Run right = right_by_construction(problem);
  const Budget budget = gradient_budget(contract, problem, gradient_truth(problem), 1, 32);
  for (Input input : {Input::q, Input::k, Input::v, Input::g, Input::initial_state}) {
    INFO("d" << name(input));
    const Channel channel = channel_of(input, problem);
    const GradientBudget& sigma = budget.gradient[index(input)];
    const std::size_t width = right.gradient[index(input)].size() / sigma.fine.size();
    REQUIRE(sigma.channel[channel.group] > 0);
    const auto judged = [&](double times) { // as large as every token's spread has it
      Run run = right;
      for (std::size_t i = 0; i < channel.elements.size(); ++i) {
        const std::size_t at = channel.elements[i];
        run.gradient[index(input)][at] += static_cast<float>((i % 2 ? -1 : 1) * times * sigma.fine[at / width]);
      }
      return judge.backward(contract, problem, run);
    };
    CHECK(judged(1).verdict == Verdict::passed);
    REQUIRE(12 / std::sqrt(static_cast<double>(width)) < 0.5 * least_factor(Group::gradient)); // no token's error comes near its bound
    const Finding finding = judged(12);
    CHECK(finding.verdict == Verdict::failed_statistical);
    CHECK(finding.detail.find("gradient channel") != std::string::npos);
    REQUIRE(finding.place);
    CHECK(finding.place->tensor == "d" + std::string(name(input)));
    CHECK(finding.place->sequence == 1);
    CHECK(finding.place->channel == 7);
  }
}

TEST_CASE("tensors of one channel have the spread of their tokens as that of their channel") {
  Drawn drawn;
  drawn.shape = {.B = 2, .T = 20, .H = 1, .HV = 1, .K = 1, .V = 1};
  const Problem problem = draw(drawn);
  Contract contract;
  contract.operands = contract.scores = Format::bf16;
  contract.chunk = 16;
  const Budget budget = gradient_budget(contract, problem, gradient_truth(problem), 1, 32);
  for (Input input : {Input::q, Input::k, Input::v, Input::g}) {
    const GradientBudget& sigma = budget.gradient[index(input)];
    REQUIRE(sigma.channel.size() == 2);
    double squares = 0;
    for (std::size_t t = 20; t < 40; ++t) squares += sigma.fine[t] * sigma.fine[t] / 20;
    INFO("d" << name(input));
    CHECK(sigma.channel[1] > 0.5 * std::sqrt(squares)); // the submodel that reaches farthest need not be the same for all tokens
    CHECK(sigma.channel[1] < 1.01 * std::sqrt(squares));
  }
}
