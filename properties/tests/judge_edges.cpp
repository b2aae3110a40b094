// Where verdicts turn, and what the eye misses: noise up to the bound and beyond it, exceptional numbers in gradients, bit comparisons.

#include "../compare_bits.hpp"
#include "../judge.hpp"
#include "drawn_problem.hpp"

#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

using namespace kdacheck;
using namespace kdacheck::testing;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity(), not_a_number = std::numeric_limits<float>::quiet_NaN();

std::size_t index(Input input) { return static_cast<std::size_t>(input); }

Run right_by_construction(const Problem& problem) {
  const Truth truth = gradient_truth(problem, Arithmetic::double_double);
  Run run;
  for (double x : truth.o.value) run.o.push_back(static_cast<float>(x));
  for (double x : truth.final_state.value) run.final_state.push_back(static_cast<float>(x));
  for (Input input : all_inputs)
    for (double x : truth[input].value) run.gradient[index(input)].push_back(static_cast<float>(x));
  return run;
}

/// Largest multiple of the noise that passes, by bisection. Every step on the way must agree with it: what is smaller passes and uses less
/// than the whole bound, what is larger does not pass.
template <class JudgeNoise> double turning_point(JudgeNoise&& judge_noise) {
  double passes = 1, refused = 64;
  REQUIRE(judge_noise(passes).verdict == Verdict::passed);
  REQUIRE(is_failure(judge_noise(refused).verdict));
  while (refused / passes > 1.02) {
    const double between = std::sqrt(passes * refused);
    (judge_noise(between).verdict == Verdict::passed ? passes : refused) = between;
  }
  for (double share : {0.25, 0.5, 0.8, 0.97}) {
    const Finding finding = judge_noise(share * passes);
    INFO(share << " of the largest multiple that passes, " << passes);
    CHECK(finding.verdict == Verdict::passed);
    CHECK(finding.bound_util <= 1);
    CHECK(finding.bound_util > 0.6 * share);
  }
  for (double times : {1.05, 1.2, 1.5, 3.0, 50.0}) {
    const Finding finding = judge_noise(times * refused);
    INFO(times << " times the smallest multiple that does not pass, " << refused);
    CHECK(finding.verdict != Verdict::passed);
    if (times >= 1.5) CHECK(is_failure(finding.verdict));
    CHECK(finding.bound_util > 1);
  }
  return passes;
}

} // namespace

TEST_CASE("noise of known size passes up to the bound of its group and is refused beyond it") {
  Judge judge;
  const Problem problem = draw({});
  Contract contract;
  contract.operands = contract.scores = Format::bf16;
  contract.chunk = 16;
  const auto budget = judge.forward_budget(contract, problem);
  const auto [B, T, H, HV, K, V] = problem.shape;
  const Run right = right_by_construction(problem);
  struct Line {
    const char* group;
    double sigma, least;
    bool state;
    std::int64_t first, count, stride;
  };
  for (const Line& line :
       {Line{"token", budget->output.token[17], 4, false, 17 * V, V, 1}, Line{"channel", budget->output.channel[3], 2, false, 3, T, V},
        Line{"state row", budget->output.state_row[5], 3.5, true, 5 * V, V, 1},
        Line{"state column", budget->output.state_column[7], 3, true, 7, K, V}}) {
    Numbers numbers{99};
    std::vector<double> noise;
    double squares = 0;
    for (std::int64_t i = 0; i < line.count; ++i) {
      noise.push_back(numbers.normal());
      squares += noise.back() * noise.back();
    }
    INFO(line.group);
    const double at = turning_point([&](double times) {
      Run run = right;
      auto& values = line.state ? run.final_state : run.o;
      for (std::int64_t i = 0; i < line.count; ++i)
        values[static_cast<std::size_t>(line.first + i * line.stride)] += static_cast<float>(
            noise[static_cast<std::size_t>(i)] / std::sqrt(squares / static_cast<double>(line.count)) * times * line.sigma);
      return judge.forward(contract, problem, run);
    });
    // in units of sigma: at least z, and no more than the widening for groups that share their errors explains
    INFO("turns at " << at << " sigma");
    CHECK(at > 0.9 * line.least);
    CHECK(at < 7);
  }
}

TEST_CASE("noise of known size in a gradient passes up to its bound and is refused beyond it") {
  Judge judge;
  const Problem problem = draw({});
  Contract contract;
  contract.operands = contract.scores = Format::bf16;
  contract.chunk = 16;
  const Run right = right_by_construction(problem);
  const Budget budget = gradient_budget(contract, problem, gradient_truth(problem), 1, 32);
  for (Input input : {Input::q, Input::k, Input::v, Input::g, Input::beta, Input::initial_state}) {
    const std::vector<double>& sigma = budget.gradient[index(input)].fine;
    const std::size_t width = right.gradient[index(input)].size() / sigma.size(), group = 9;
    INFO("d" << name(input));
    const double at = turning_point([&](double times) {
      Run run = right;
      for (std::size_t i = group * width; i < (group + 1) * width; ++i)
        run.gradient[index(input)][i] += static_cast<float>((i % 2 ? -1 : 1) * times * sigma[group]);
      return judge.backward(contract, problem, run);
    });
    INFO("turns at " << at << " sigma");
    CHECK(at > 2.5);
    CHECK(at < 8);
  }
}

TEST_CASE("a gradient with one number that is not finite, of any kind and wherever, is refused") {
  Judge judge;
  const Problem problem = draw({});
  const Run right = right_by_construction(problem);
  REQUIRE(judge.backward({}, problem, right).verdict == Verdict::passed);
  for (Input input : {Input::q, Input::k, Input::v, Input::g, Input::beta, Input::initial_state})
    for (float bad : {not_a_number, infinity, -infinity})
      for (bool last : {false, true}) {
        Run run = right;
        auto& tensor = run.gradient[index(input)];
        tensor[last ? tensor.size() - 1 : 0] = bad;
        INFO("d" << name(input) << (last ? " last " : " first ") << bad);
        const Finding finding = judge.backward({}, problem, run);
        CHECK(finding.verdict == Verdict::failed_proved);
        REQUIRE(finding.place);
        CHECK(finding.place->tensor == "d" + std::string(name(input)));
      }
}

TEST_CASE("gradients that are zero may have either sign, and nothing else") {
  Judge judge;
  Problem problem = draw({});
  std::ranges::fill(problem.d_o, 0.0f);
  std::ranges::fill(problem.d_final_state, 0.0f);
  Run run = right_by_construction(problem);
  for (float zero : {0.0f, -0.0f}) {
    for (auto& tensor : run.gradient) std::ranges::fill(tensor, zero);
    const Finding finding = judge.backward({}, problem, run);
    CHECK(finding.verdict == Verdict::passed);
    CHECK(finding.bound_util == 0);
  }
  for (Input input : {Input::q, Input::k, Input::v, Input::g, Input::beta, Input::initial_state}) {
    Run wrong = run;
    wrong.gradient[index(input)][5] = 1e-30f;
    INFO("d" << name(input));
    CHECK(is_failure(judge.backward({}, problem, wrong).verdict));
  }
}

TEST_CASE("gradients that underflow may be flushed to zero, and not more") {
  Judge judge;
  Problem problem = draw({});
  for (auto* cotangents : {&problem.d_o, &problem.d_final_state})
    for (float& x : *cotangents) x *= 0x1p-127f;
  Run flushed = right_by_construction(problem);
  bool any = false;
  for (auto& tensor : flushed.gradient)
    for (float& x : tensor)
      if (x != 0 && std::fabs(x) < 0x1p-126f) x = 0, any = true;
  REQUIRE(any);
  CHECK(judge.backward({}, problem, flushed).verdict == Verdict::passed);
  Run wrong = flushed;
  wrong.gradient[index(Input::v)][5] += 1e-35f;
  CHECK(is_failure(judge.backward({}, problem, wrong).verdict));
}

TEST_CASE("gradients of an empty problem pass, and its state's must be the loss's own") {
  Judge judge;
  Drawn drawn;
  drawn.shape.T = 0;
  const Problem empty = draw(drawn);
  Run run = right_by_construction(empty);
  CHECK(judge.backward({}, empty, run).verdict == Verdict::passed);
  run.gradient[index(Input::initial_state)][3] *= 1.01f;
  CHECK(is_failure(judge.backward({}, empty, run).verdict));
}

TEST_CASE("one wrong element in a million of a gradient is seen") {
  Judge judge;
  Drawn drawn;
  drawn.shape = {.B = 1, .T = 2048, .H = 1, .HV = 8, .K = 4, .V = 64};
  const Problem problem = draw(drawn);
  Contract contract; // one whose gradients have a proved bound: refusing needs no confirmation by 128 runs of a million elements
  contract.order = Order::recurrence;
  contract.chunk = 1;
  Run run = right_by_construction(problem);
  auto& tensor = run.gradient[index(Input::v)];
  REQUIRE(tensor.size() > 1000000);
  CHECK(judge.backward(contract, problem, run).verdict == Verdict::passed);
  double squares = 0;
  for (float x : tensor) squares += x * x;
  tensor[777777] += static_cast<float>(std::sqrt(squares / static_cast<double>(tensor.size())));
  const Finding finding = judge.backward(contract, problem, run);
  INFO("error / bound " << finding.bound_util << " " << finding.detail);
  CHECK(finding.verdict == Verdict::failed_proved);
  REQUIRE(finding.place);
  CHECK(finding.place->tensor == "dv");
  CHECK(finding.place->token == 777777 / 64 / 8);
  CHECK(finding.place->head == 777777 / 64 % 8);
}

TEST_CASE(
    "the oracle of gradients escalates by itself as that of outputs does, step by step as far as it takes, and the finding says how far") {
  Contract dplr;
  dplr.rules = {Rule::dplr};
  const auto judged = [&](std::int64_t T) {
    Drawn drawn;
    drawn.rule = Rule::dplr, drawn.shape.T = T, drawn.decay = 1e-3; // steps whose norms exceed 1 while their product does not grow
    const Problem problem = draw(drawn);
    Run run;
    const Truth truth = gradient_truth(problem, Arithmetic::multiprecision, 452);
    for (Input input : all_inputs)
      for (double x : truth[input].value) run.gradient[index(input)].push_back(static_cast<float>(x));
    Judge judge;
    const Finding finding = judge.backward(dplr, problem, run);
    INFO("T " << T << ": " << finding.detail);
    CHECK(finding.verdict == Verdict::passed);
    return finding.oracle;
  };
  CHECK(judged(8).empty());
  CHECK(judged(160) == "double_double");
  CHECK(judged(400) == "226 bits");
}

TEST_CASE("results that must be the same are compared bit by bit, or as numbers") {
  const float other_nan = std::bit_cast<float>(std::bit_cast<std::uint32_t>(not_a_number) | 1u),
              least = std::numeric_limits<float>::denorm_min();
  for (Equality equality : {Equality::bits, Equality::numbers}) {
    const bool bits = equality == Equality::bits;
    for (float x : {0.0f, -0.0f, 1.0f, infinity, -infinity, not_a_number, least, -least}) CHECK(same(x, x, equality));
    CHECK(same(0.0f, -0.0f, equality) != bits);
    CHECK(same(not_a_number, other_nan, equality) != bits);
    for (auto [x, y] : {std::pair{0.0f, least},
                        {least, 2 * least},
                        {1.0f, std::nextafter(1.0f, 2.0f)},
                        {infinity, -infinity},
                        {not_a_number, 1.0f},
                        {1.0f, not_a_number},
                        {not_a_number, infinity},
                        {infinity, std::numeric_limits<float>::max()}}) {
      CHECK_FALSE(same(x, y, equality));
      CHECK_FALSE(same(y, x, equality));
    }
  }
}

TEST_CASE("the first of a million elements that differs is found, in every tensor, and nothing where there are none") {
  Drawn drawn;
  drawn.shape = {.B = 1, .T = 2048, .H = 1, .HV = 8, .K = 4, .V = 64};
  const Problem problem = draw(drawn);
  Run one;
  one.o.assign(2048 * 8 * 64, 1);
  one.final_state.assign(8 * 4 * 64, 2);
  for (Input input : {Input::q, Input::k, Input::v, Input::g, Input::beta, Input::initial_state})
    one.gradient[index(input)].assign(problem[input].size(), 3);
  CHECK_FALSE(first_difference(problem, 16, one, one, Equality::bits));
  CHECK_FALSE(first_difference(problem, 16, {}, {}, Equality::bits));
  Run other = one;
  other.o[777777] = std::nextafter(1.0f, 2.0f);
  const auto found = first_difference(problem, 16, one, other, Equality::bits);
  REQUIRE(found);
  CHECK(found->place.tensor == "o");
  CHECK(found->place.token == 777777 / 64 / 8);
  CHECK(found->place.head == 777777 / 64 % 8);
  CHECK(found->place.channel == 777777 % 64);
  other = one;
  other.final_state.back() = not_a_number;
  CHECK(first_difference(problem, 16, one, other, Equality::numbers)->place.tensor == "final_state");
  for (Input input : {Input::q, Input::k, Input::v, Input::g, Input::beta, Input::initial_state}) {
    other = one;
    other.gradient[index(input)].back() = -3;
    CHECK(first_difference(problem, 16, one, other, Equality::bits)->place.tensor == "d" + std::string(name(input)));
  }
}
