// The oracle's entry points: every number type tells the same story to its own precision.

#include "../oracle.hpp"
#include "small_problems.hpp"

#include <catch2/catch.hpp>

#include <stdexcept>

using namespace kdacheck;

namespace {

/// Largest difference of two results in value + low, relative to the largest element; infinite if sizes differ.
double relative_difference(const Digits& x, const Digits& y) {
  if (x.value.size() != y.value.size()) return std::numeric_limits<double>::infinity();
  double worst = 0, size = 0;
  for (std::size_t i = 0; i < x.value.size(); ++i) {
    const double low = (x.low.empty() ? 0 : x.low[i]) - (y.low.empty() ? 0 : y.low[i]);
    const double difference = std::fabs((x.value[i] - y.value[i]) + low);
    if (!(difference <= worst)) worst = difference;
    size = std::max(size, std::fabs(y.value[i]));
  }
  return size > 0 ? worst / size : worst;
}

Problem example() {
  return make_small({.shape = {.B = 2, .T = 12, .H = 1, .HV = 2, .K = 4, .V = 3},
                     .options = {.gate = GateForm::softplus, .beta = BetaForm::sigmoid, .l2norm = true, .scale = 0.5f}},
                    19);
}

} // namespace

TEST_CASE("every number type agrees with 300 digits as far as its significand reaches") {
  const Problem problem = example();
  const Evaluation exact = evaluate_gradients(problem, NumberType::mpfr_variable, 300);
  CHECK(exact.bits >= 996);
  for (NumberType type : all_number_types) {
    const Evaluation computed = evaluate_gradients(problem, type, 60);
    // 12 tokens, K + V + 20 roundings each way, none amplified by more than 10; two doubles resolve 2^-106 at best
    const double allowed = 10 * 2 * 12 * 27 * std::ldexp(1.0, -std::min(computed.bits, 106));
    INFO(name(type) << ", " << computed.bits << " bits");
    CHECK(computed.o.low.empty() == (type == NumberType::fp64));
    CHECK(relative_difference(computed.o, exact.o) <= allowed);
    CHECK(relative_difference(computed.final_state, exact.final_state) <= allowed);
    for (Input input : all_inputs) {
      INFO(name(input));
      CHECK(computed[input].value.size() == problem[input].size());
      CHECK(relative_difference(computed[input], exact[input]) <= allowed);
    }
  }
}

TEST_CASE("the significands are as long as their names say") {
  const Problem problem = make_small({.shape = {.T = 1, .H = 1, .HV = 1, .K = 1, .V = 1}}, 1);
  CHECK(evaluate(problem, NumberType::fp64).bits == 53);
  CHECK(evaluate(problem, NumberType::long_double).bits == 64);
  CHECK(evaluate(problem, NumberType::cpp_bin_float_113).bits == 113);
  CHECK(evaluate(problem, NumberType::mpfr_113).bits >= 113);
  for (NumberType type : {NumberType::cpp_bin_float_50, NumberType::mpfr_50}) CHECK(evaluate(problem, type).bits >= 167);
  for (NumberType type : {NumberType::cpp_bin_float_100, NumberType::mpfr_100}) CHECK(evaluate(problem, type).bits >= 333);
  CHECK(evaluate(problem, NumberType::mpfr_variable, 1000).bits >= 3322);
}

TEST_CASE("outputs alone are the outputs that come with gradients, and no gradient is made unasked") {
  const Problem problem = example();
  const Evaluation alone = evaluate(problem, NumberType::mpfr_50), with = evaluate_gradients(problem, NumberType::mpfr_50);
  CHECK(alone.o.value == with.o.value);
  CHECK(alone.o.low == with.o.low);
  CHECK(alone.final_state.value == with.final_state.value);
  for (Input input : all_inputs) CHECK(alone[input].empty());
}

TEST_CASE("the low word holds what the value leaves out") {
  // alpha = e^-1 on a state of 1, beta 0, q = 1: o = 1/e, whose double is 0x1.78b56362cef38p-2 and next word -0x1.ca8a4270fadf5p-57
  Problem problem;
  problem.shape = {.T = 1};
  problem.q = problem.k = problem.v = {1};
  problem.g = {-1};
  problem.beta = {0};
  problem.initial_state = {1};
  for (NumberType type : {NumberType::cpp_bin_float_113, NumberType::mpfr_113, NumberType::cpp_bin_float_50, NumberType::mpfr_100}) {
    const Evaluation result = evaluate(problem, type);
    CHECK(result.o.value[0] == 0x1.78b56362cef38p-2);
    CHECK(result.o.low[0] == Approx(-0x1.ca8a4270fadf5p-57).epsilon(1e-15));
  }
}

TEST_CASE("a malformed problem is refused with a sentence") {
  Problem problem = example();
  problem.v.pop_back();
  CHECK_THROWS_AS(evaluate(problem), std::invalid_argument);
  CHECK_THROWS_WITH(evaluate(problem), Catch::Contains("v: has"));
}

TEST_CASE("no tokens leave the state as it was and write no output") {
  for (Rule rule : {Rule::kda, Rule::dplr}) {
    const Problem problem = make_small({.shape = {.H = 1, .HV = 2, .K = 2, .V = 2}, .options = {.rule = rule}, .lengths = {0, 0}}, 6);
    const Evaluation result = evaluate_gradients(problem, NumberType::mpfr_113);
    CHECK(result.o.empty());
    CHECK(result.final_state.value == std::vector<double>(problem.initial_state.begin(), problem.initial_state.end()));
    CHECK(result[Input::initial_state].value == std::vector<double>(problem.d_final_state.begin(), problem.d_final_state.end()));
  }
}
