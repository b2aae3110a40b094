#include "../margins.hpp"
#include "drawn_problem.hpp"

#include "../../kernels/faults/faults.hpp"

#include <catch2/catch.hpp>
#include <cmath>

using namespace kdacheck;
using namespace kdacheck::testing;

TEST_CASE("z derived anew from right kernels lies below the constants, and a fault does not") {
  const Kernel right = faultless_kernel("right", "chunk=16 order=residual_first beta_max=2 l2norm=both");
  MarginsPlan plan{.kernels = {&right}, .regimes = {regime_named("gaussian-keys"), regime_named("no-decay")}};
  const auto measured = measured_margins(plan);
  REQUIRE(measured.size() == 2);
  for (const KernelMargin& m : measured) {
    INFO(margins_table(measured));
    CHECK(m.cases == 2);
    CHECK(m.above == 0);
    CHECK(m.largest_util > 0);
    CHECK(m.largest_util <= 1);
    std::int64_t groups = 0;
    for (Group group : all_groups) {
      const Margin& margin = m.margin[static_cast<std::size_t>(group)];
      CHECK(margin.largest < least_factor(group));
      CHECK(margin.quantile_share < 1);
      groups += margin.groups;
    }
    CHECK(groups > 20);
    CHECK((m.margin[static_cast<std::size_t>(Group::gradient)].groups > 0) == m.backward);
  }
  FaultInfo planted{};
  for (const FaultInfo& info : planted_faults())
    if (info.name == "beta-bf16") planted = info;
  const Kernel wrong = faulty_kernel(planted);
  plan.kernels = {&wrong};
  CHECK(measured_margins(plan)[0].above == 2);
}

TEST_CASE("a plan cut short has dealt its time evenly to kernels and regimes, and a whole one leaves nothing out") {
  std::vector<Kernel> kernels;
  for (int i = 0; i < 3; ++i) kernels.push_back(faultless_kernel("right" + std::to_string(i), "chunk=16 order=residual_first"));
  MarginsPlan plan{
      .regimes = {regime_named("gaussian-keys"), regime_named("no-decay"), regime_named("beta-zero"), regime_named("exact-unit-keys")},
      .threads = 1};
  for (const Kernel& kernel : kernels) plan.kernels.push_back(&kernel);
  for (const KernelMargin& m : measured_margins(plan)) {
    CHECK(m.planned == 4);
    CHECK(m.cases + m.outside == 4);
  }
  // the clock decides where a plan is cut: any cut will do
  plan.seeds = 1000;
  plan.seconds = 1;
  const auto cut = measured_margins(plan);
  std::int64_t least = 1 << 30, most = 0;
  for (const KernelMargin& m : cut) least = std::min(least, m.cases + m.outside), most = std::max(most, m.cases + m.outside);
  INFO(margins_table(cut));
  CHECK(most < 4000);
  CHECK(most - least <= 4);
  CHECK(margins_table(cut).find("planned cases were begun in the time given") != std::string::npos);
}

TEST_CASE("the margin of a group is its error in units of sigma") {
  const Problem problem = draw({});
  const Contract contract = *parse_contract("chunk=16 order=residual_first").contract;
  const Truth truth = forward_truth(problem, Arithmetic::double_double);
  const Budget budget = forward_budget(contract, problem, truth, 1, 32);
  Run run;
  for (double x : truth.o.value) run.o.push_back(static_cast<float>(x));
  for (double x : truth.final_state.value) run.final_state.push_back(static_cast<float>(x));
  const auto V = static_cast<std::size_t>(problem.shape.V);
  const double size = 1000 * budget.output.token[17];
  for (std::size_t j = 0; j < V; ++j) run.o[17 * V + j] += static_cast<float>(size);
  const Comparison c = compare_forward(contract, problem, truth, budget, run);
  const Margin& token = c.margin[static_cast<std::size_t>(Group::token)];
  const double seen = token.largest > 0 ? token.largest : token.quantile_share * token.quantile;
  CHECK(seen > 990);
  CHECK(seen < 1010);
}
