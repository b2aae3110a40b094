// The contract's decay=head: kernels of the gated delta rule, whose decay is one number a head, are kernels of KDA on cases
// whose channels share it.

#include "../campaign.hpp"
#include "checked.hpp"
#include "plain_recurrence.hpp"

#include <catch2/catch.hpp>

using namespace kdacheck;
using namespace kdacheck::tests;

namespace {

/// Reads the decay of a head's first channel for all of them.
Kernel one_decay_a_head(const char* contract) {
  Kernel kernel = plain_recurrence(*parse_contract(std::string("beta_max=2 k_norm_max=2 gates=log_decay,absent ") + contract).contract);
  kernel.forward = [](const Inputs& in, const Outputs& out, std::span<std::byte>) {
    Inputs first_channel = in;
    if (first_channel[Input::g]) first_channel[Input::g].stride[3] = 0;
    plain_forward(first_channel, out);
  };
  return kernel;
}

struct Counts {
  int passed = 0, failed = 0, per_channel = 0;
};

Counts judged(const Kernel& kernel) {
  static Judge judge;
  Counts counts;
  for (const Regime& regime : regimes())
    for (const char* law : {"agrees-with-the-oracle", "future-tokens-change-nothing-before-them"}) {
      const Recipe recipe = fitted(regime.draw(1, Tier::quick), kernel.contract);
      const Finding finding = run_case(kernel, property_named(law), recipe, judge).finding;
      INFO(law << " on " << regime.name << ": " << finding.detail);
      counts.passed += finding.verdict == Verdict::passed;
      counts.failed += is_failure(finding.verdict);
      counts.per_channel += finding.detail.find("differs between channels") != std::string::npos;
    }
  return counts;
}

} // namespace

TEST_CASE("a kernel with one decay a head passes where its contract says so, and no case is lost to it") {
  const Counts counts = judged(one_decay_a_head("decay=head"));
  CHECK(counts.failed == 0);
  CHECK(counts.passed > 60);
  CHECK(counts.per_channel == 0);
}

TEST_CASE("a kernel with one decay a head fails where its contract does not say so") {
  CHECK(judged(one_decay_a_head("decay=channel")).failed > 0);
}

TEST_CASE("every gate input of a shared decay is shared, in any form and stored format") {
  for (const char* gates : {"log_decay", "softplus", "bounded", "sigmoid"})
    for (const Format stored : {Format::fp32, Format::bf16}) {
      const Contract contract = *parse_contract(std::string("decay=head beta_max=2 gates=") + gates).contract;
      int inside = 0;
      for (const Regime& regime : regimes()) {
        const Recipe recipe = fitted(regime.draw(2, Tier::quick), contract);
        if (recipe.options.rule == Rule::dplr || recipe.options.gate == GateForm::absent) continue;
        const Problem problem = make_problem(recipe, {.qkv = Format::fp32, .gate = stored, .beta = Format::fp32});
        const auto reason = outside_domain(contract, problem).value_or("");
        INFO(gates << " " << regime.name << " " << reason);
        CHECK(reason.find("differs between channels") == std::string::npos);
        inside += reason.empty();
      }
      CHECK(inside > 20);
    }
}

TEST_CASE("a decay shared by a head's channels has no gradient of a channel of its own") {
  Kernel kernel = plain_recurrence(*parse_contract("decay=head").contract);
  kernel.backward = [](const Inputs&, const Cotangents&, const GradientOutputs& gradients, std::span<std::byte>) {
    CHECK_FALSE(gradients[Input::g]);
    CHECK(gradients[Input::q]);
  };
  const Recipe recipe = fitted(regime_named("usual-decay")->draw(1, Tier::quick), kernel.contract);
  const Run run = run_backward(kernel, make_problem(recipe, input_formats(kernel.contract)));
  CHECK(run.gradient[static_cast<std::size_t>(Input::g)].empty());
}

TEST_CASE("a kernel of one scale is handed that scale") {
  for (const char* scale : {"rsqrt_K", "0.5"}) {
    const Contract contract = *parse_contract(std::string("beta_max=2 k_norm_max=inf scale=") + scale).contract;
    for (const Regime& regime : regimes()) {
      const Recipe recipe = fitted(regime.draw(3, Tier::quick), contract);
      const auto reason = outside_domain(contract, make_problem(recipe, input_formats(contract))).value_or("");
      INFO(regime.name << " " << reason);
      CHECK_FALSE(reason.starts_with("scale="));
    }
  }
}
