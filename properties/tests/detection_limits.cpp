#include "../detection_limits.hpp"

#include "../../kernels/faults/correct_variants.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <set>

using namespace kdacheck;

namespace {

const Kernel& named(std::string_view name) {
  for (std::span<const Kernel> kernels : {built_in_kernels(), correct_variants()})
    for (const Kernel& kernel : kernels)
      if (kernel.name == name) return kernel;
  FAIL("nothing is named " << name);
  return built_in_kernels().front();
}

} // namespace

TEST_CASE("limits follow the precision of the contract: about 2^-20 in fp32, 2^-6 in bf16, on every tensor that there is") {
  LimitsPlan plan{.kernels = {&named("correct.fp32.chunk16"), &named("correct.bf16.chunk16"), &named("cpu.dplr.recurrence.fp32")},
                  .regimes = {regime_named("gaussian-keys"), regime_named("dplr-benign")},
                  .seeds = 1,
                  .threads = 2};
  const auto limits = detection_limits(plan);
  const auto of = [&](std::string_view label, std::string_view what, std::string_view regime) -> std::optional<int> {
    const auto found = std::ranges::find_if(
        limits, [&](const Limit& limit) { return limit.label == label && limit.what == what && limit.regime == regime; });
    INFO(label << ": " << what << " on " << regime);
    REQUIRE(found != limits.end());
    return found->exponent;
  };
  for (const char* what : {"o", "final_state", "input q", "input k", "input v", "input beta", "dq", "dk", "dv", "dbeta"}) {
    const auto fine = of("fp32.chunk16", what, "gaussian-keys"), coarse = of("bf16.chunk16", what, "gaussian-keys");
    REQUIRE(fine);
    REQUIRE(coarse);
    INFO(what << ": fp32 2^-" << *fine << ", bf16 2^-" << *coarse);
    CHECK(*fine >= 15);
    CHECK(*fine <= 24);
    CHECK(*coarse >= 3);
    CHECK(*coarse <= 12);
  }
  for (const char* what : {"input a", "input b", "da", "db"}) CHECK(of("dplr.recurrence.fp32", what, "dplr-benign").value_or(0) >= 14);
  CHECK(std::ranges::none_of(limits, [](const Limit& limit) { return limit.label == "fp32.chunk16" && limit.regime == "dplr-benign"; }));
  CHECK(std::ranges::none_of(limits, [](const Limit& limit) { return limit.what == "input A_log"; })); // no raw gates in these cases
}

TEST_CASE("the usual limits cover every format, order and rule, with regimes that have something to say of each kernel") {
  std::set<Format> operands, states;
  std::set<Order> orders;
  std::set<Rule> rules;
  for (const Kernel* kernel : usual_kernels_for_limits()) {
    operands.insert(kernel->contract.operands), states.insert(kernel->contract.state);
    orders.insert(kernel->contract.order), rules.insert(kernel->contract.rules.begin(), kernel->contract.rules.end());
    CHECK(std::ranges::any_of(usual_regimes_for_limits(), [&](const Regime* regime) { return can_have_limits(*kernel, *regime); }));
  }
  CHECK(operands == std::set{Format::fp32, Format::bf16, Format::fp16, Format::tf32});
  CHECK(states == std::set{Format::fp32, Format::bf16, Format::fp16});
  CHECK(orders == std::set{Order::undeclared, Order::residual_first, Order::wy, Order::recurrence});
  CHECK(rules == std::set{Rule::kda, Rule::dplr});
}
