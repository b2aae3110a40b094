// The contract's gradient_state: a backward pass that reads the states it stored, and their cotangents, in a coarser format
// than it carries them. One chunk, beta 0 and a loss on the final state alone, so that the whole gradient of the decay is
// e^G sum_j S_cj dS_cj and nothing else can explain its error.

#include "../cases/recipe.hpp"
#include "../judge.hpp"

#include <catch2/catch.hpp>

#include <cmath>

using namespace kdacheck;

namespace {

Problem state_alone() {
  Recipe recipe;
  recipe.regime = "state-alone";
  recipe.shape = {.B = 1, .T = 24, .H = 2, .HV = 2, .K = 16, .V = 32};
  recipe.options.scale = 0.25f;
  recipe.gates = GatePattern::jitter;
  recipe.decay = 0.05f;
  recipe.decay_spread = 0.5f;
  recipe.betas = BetaPattern::constant;
  recipe.beta_center = recipe.beta_spread = 0;
  recipe.state = StatePattern::gaussian;
  recipe.loss = LossPattern::final_state_only;
  recipe.seed = 5;
  return make_problem(recipe, {.qkv = Format::bf16, .gate = Format::fp32, .beta = Format::fp32});
}

/// dg as a kernel forms it that keeps `bits` significant bits of the states it stores.
Run with_stored_bits(const Problem& problem, int bits) {
  const auto [B, T, H, HV, K, V] = problem.shape;
  const auto stored = [&](float x) {
    int exponent = 0;
    const double mantissa = std::frexp(static_cast<double>(x), &exponent);
    return std::ldexp(std::nearbyint(std::ldexp(mantissa, bits)), exponent - bits);
  };
  Run run;
  std::vector<float>& dg = run.gradient[static_cast<std::size_t>(Input::g)];
  dg.resize(problem.g.size());
  for (std::int64_t head = 0; head < HV; ++head)
    for (std::int64_t c = 0; c < K; ++c) {
      double G = 0, sum = 0;
      for (std::int64_t t = 0; t < T; ++t) G += problem.g[static_cast<std::size_t>((t * HV + head) * K + c)];
      for (std::int64_t j = 0; j < V; ++j) {
        const auto at = static_cast<std::size_t>((head * K + c) * V + j);
        sum += stored(problem.initial_state[at]) * stored(problem.d_final_state[at]);
      }
      for (std::int64_t t = 0; t < T; ++t) dg[static_cast<std::size_t>((t * HV + head) * K + c)] = static_cast<float>(std::exp(G) * sum);
    }
  return run;
}

Verdict verdict(const char* contract, int bits) {
  static Judge judge;
  static const Problem problem = state_alone();
  const Finding finding = judge.backward(*parse_contract(contract).contract, problem, with_stored_bits(problem, bits));
  UNSCOPED_INFO(contract << ", " << bits << " bits: " << name(finding.verdict) << " " << finding.bound_util << " " << finding.detail);
  return finding.verdict;
}

} // namespace

TEST_CASE("a gradient that reads states in bf16 passes under a contract that says so, and under no other") {
  for (const char* order : {"residual_first", "wy"}) {
    const std::string contract = std::string("input=bf16 output=bf16 operands=bf16 chunk=64 order=") + order;
    CHECK(verdict(contract.c_str(), 24) == Verdict::passed);
    CHECK(verdict(contract.c_str(), 8) == Verdict::failed_statistical);
    CHECK(verdict((contract + " gradient_state=bf16").c_str(), 8) == Verdict::passed);
  }
}

TEST_CASE("gradient_state excuses its own format and nothing coarser") {
  const char* contract = "input=bf16 output=bf16 operands=bf16 chunk=64 order=wy gradient_state=bf16";
  CHECK(verdict(contract, 4) == Verdict::failed_statistical); // as an 8-bit format would leave them
  CHECK(verdict("input=bf16 output=bf16 operands=bf16 chunk=64 order=wy gradient_state=fp16", 8) == Verdict::failed_statistical);
  CHECK(verdict("input=bf16 output=bf16 operands=bf16 chunk=64 order=wy gradient_state=fp16", 11) == Verdict::passed);
}

TEST_CASE("a recurrence may read stored states coarsely too, if it says so") {
  const std::string contract = "input=bf16 output=bf16 chunk=1 order=recurrence";
  CHECK(verdict(contract.c_str(), 8) == Verdict::failed_proved);
  CHECK(verdict((contract + " gradient_state=bf16").c_str(), 8) == Verdict::passed);
}

TEST_CASE("a contract whose gradients read states in fp32 keeps its budget to the last bit") {
  const Problem problem = state_alone();
  const Truth truth = gradient_truth(problem);
  const Contract usual = *parse_contract("operands=bf16 chunk=16 order=wy").contract;
  const Contract said = *parse_contract("operands=bf16 chunk=16 order=wy gradient_state=fp32").contract;
  const Contract coarse = *parse_contract("operands=bf16 chunk=16 order=wy gradient_state=bf16").contract;
  const auto dg = [&](const Contract& contract) {
    return gradient_budget(contract, problem, truth, 7, 8).gradient[static_cast<std::size_t>(Input::g)].fine;
  };
  CHECK(dg(usual) == dg(said));
  CHECK(dg(usual) != dg(coarse));
}
