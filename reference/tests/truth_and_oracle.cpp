// Two engines that share no arithmetic: the certified recurrence must enclose what the naive one gives with 100 digits.

#include "../oracle.hpp"
#include "../truth.hpp"
#include "small_problems.hpp"

#include <catch2/catch.hpp>

#include <limits>

using namespace kdacheck;

namespace {

/// Elements outside their enclosure, those whose enclosure says nothing, and how many were looked at.
struct Count {
  std::int64_t outside = 0, vague = 0, seen = 0;
};

void compare(const Enclosed& truth, const Digits& witness, Count& count) {
  REQUIRE(truth.value.size() == witness.value.size());
  REQUIRE(truth.radius.size() == witness.value.size());
  for (std::size_t i = 0; i < witness.value.size(); ++i) {
    const double low = (truth.low.empty() ? 0 : truth.low[i]) - witness.low[i];
    const double error = std::fabs((truth.value[i] - witness.value[i]) + low);
    // two doubles hold the witness to 2^-106 of it; the difference above is rounded twice
    const double blur = std::fabs(witness.value[i]) * 0x1p-105 + error * 0x1p-51;
    count.outside += !(error <= truth.radius[i] + blur);
    count.vague += !(truth.radius[i] <= 1e-8); // the numbers here are of order one to a hundred
    ++count.seen;
  }
}

} // namespace

TEST_CASE("certified outputs and gradients enclose 100 digits for every option and arithmetic") {
  std::uint64_t seed = 700;
  for (const Options& options : every_option()) {
    const Problem problem = make_small({.shape = {.H = 2, .HV = 4, .K = 5, .V = 3}, .options = options, .lengths = {6, 0, 1, 3}}, ++seed);
    const Evaluation witness = evaluate_gradients(problem, NumberType::mpfr_100);
    for (Arithmetic arithmetic : {Arithmetic::fp64, Arithmetic::double_double, Arithmetic::multiprecision}) {
      const Truth alone = forward_truth(problem, arithmetic), truth = gradient_truth(problem, arithmetic);
      Count count;
      for (Output output : all_outputs) {
        compare(alone[output], witness[output], count);
        compare(truth[output], witness[output], count);
      }
      CHECK(count.seen == 2 * (10 * 4 * 3 + 4 * 4 * 5 * 3));
      for (Input input : all_inputs) {
        INFO(name(input));
        compare(truth[input], witness[input], count);
        CHECK(truth[input].value.size() == problem[input].size());
      }
      INFO(describe(options) << " " << name(arithmetic));
      CHECK(count.outside == 0);
      CHECK(count.vague == 0);
    }
  }
}

TEST_CASE("certified outputs and gradients enclose 100 digits at extreme gates") {
  const float infinity = std::numeric_limits<float>::infinity();
  for (GateForm gate : {GateForm::log_decay, GateForm::softplus, GateForm::bounded, GateForm::sigmoid})
    for (float A_log : {-infinity, -10.0f, 0.0f, 6.0f, 88.0f})
      for (float x : {-1e3f, -40.0f, -1e-3f, 40.0f, 1e3f}) {
        const bool parametric = gate == GateForm::softplus || gate == GateForm::bounded;
        if (!parametric && A_log != 0) continue;
        Problem problem = make_small({.shape = {.T = 4, .H = 1, .HV = 1, .K = 3, .V = 2}, .options = {.gate = gate}, .dt_bias = false}, 60);
        for (float& value : problem.A_log) value = A_log;
        for (float& value : problem.g) value = gate == GateForm::log_decay ? -std::fabs(x) : x;
        const Evaluation witness = evaluate_gradients(problem, NumberType::mpfr_100);
        for (Arithmetic arithmetic : {Arithmetic::fp64, Arithmetic::double_double, Arithmetic::multiprecision}) {
          const Truth truth = gradient_truth(problem, arithmetic);
          INFO(name(gate) << " A_log " << A_log << " x " << x << " " << name(arithmetic));
          Count count;
          for (Output output : all_outputs) compare(truth[output], witness[output], count);
          for (Input input : all_inputs) compare(truth[input], witness[input], count);
          CHECK(count.outside == 0);
        }
      }
}
