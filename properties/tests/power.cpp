#include "../cases/recipe.hpp"
#include "../judge.hpp"

#include "../../kernels/faults/faults.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <string>
#include <utility>
#include <vector>

using namespace kdacheck;

namespace {

/// A case of a regime at a size of its own: four chunks of 16 tokens, one head.
Problem case_of(const std::string& regime, const Contract& contract, std::uint64_t seed) {
  Recipe recipe = regime_named(regime)->draw(seed, Tier::quick);
  recipe.shape = {.B = 1, .T = 64, .H = 1, .HV = 1, .K = 64, .V = 32};
  recipe.lengths.clear();
  const Recipe inside = fitted(recipe, contract);
  return make_problem(inside, input_formats(contract));
}

struct Expectation {
  std::string fault;
  std::vector<std::string> regimes; ///< each of them must show it
};

/// Power as error-theory has it: which fault shows in which regime under the contract that the faulty kernel claims.
const std::vector<Expectation> expected{
    {"neumann-bf16", {"near-identical-keys", "alternating-keys"}},
    {"neumann-fp16", {"near-identical-keys"}},
    {"first-order-inverse", {"near-identical-keys", "alternating-keys", "gaussian-keys", "slow-decay"}},
    {"beta-bf16", {"gaussian-keys", "slow-decay", "uniform-keys"}},
    {"alpha-bf16", {"slow-decay", "usual-decay", "pure-transport", "beta-tiny"}},
    {"residual-bf16", {"gaussian-keys", "slow-decay", "converged-memory"}},
    {"state-bf16", {"slow-decay", "pure-transport", "beta-tiny", "converged-memory"}},
    {"carry-dropped", {"slow-decay", "converged-memory", "near-identical-keys"}},
    {"carry-not-decayed", {"usual-decay", "pure-transport"}},
    {"short-keys-flushed", {"tiny-keys"}},
};

} // namespace

TEST_CASE("a known fault is refused in every regime that exposes it, and the same kernel without it passes") {
  Judge judge;
  for (const Expectation& expectation : expected) {
    const auto faults = planted_faults();
    const auto info = std::find_if(faults.begin(), faults.end(), [&](const FaultInfo& each) { return each.name == expectation.fault; });
    REQUIRE(info != faults.end());
    const Kernel faulty = faulty_kernel(*info), faultless = faultless_kernel("the same", info->contract);
    for (const std::string& regime : expectation.regimes)
      for (std::uint64_t seed : {1, 2, 3}) {
        const Problem problem = case_of(regime, faulty.contract, seed);
        INFO(expectation.fault << " in " << regime << ", seed " << seed);
        REQUIRE(!outside_domain(faulty.contract, problem));
        const Finding wrong = judge.forward(faulty.contract, problem, run_forward(faulty, problem));
        INFO("error / bound " << wrong.bound_util);
        CHECK(is_failure(wrong.verdict));
        const Finding right = judge.forward(faultless.contract, problem, run_forward(faultless, problem));
        INFO("without the fault " << right.bound_util);
        CHECK(right.verdict == Verdict::passed);
      }
  }
}

TEST_CASE("short keys that are taken for zero are refused on every draw of tiny-keys under fp32, and on nearly all under bf16") {
  Judge judge;
  const auto faults = planted_faults();
  FaultInfo info = *std::ranges::find(faults, "short-keys-flushed", &FaultInfo::name);
  const std::pair<const char*, int> least[]{{"chunk=16 order=residual_first", 16},
                                            {"input=bf16 output=bf16 operands=bf16 chunk=16 order=residual_first", 14}};
  for (const auto& [contract, wanted] : least) {
    info.contract = contract;
    const Kernel faulty = faulty_kernel(info), faultless = faultless_kernel("the same", contract);
    int seen = 0;
    for (std::uint64_t seed = 0; seed < 16; ++seed) {
      const Recipe recipe = fitted(regime_named("tiny-keys")->draw(seed, Tier::quick), faulty.contract);
      const Problem problem = make_problem(recipe, input_formats(faulty.contract));
      REQUIRE(!outside_domain(faulty.contract, problem));
      INFO(contract << ", seed " << seed);
      seen += is_failure(judge.forward(faulty.contract, problem, run_forward(faulty, problem)).verdict);
      CHECK(judge.forward(faultless.contract, problem, run_forward(faultless, problem)).verdict == Verdict::passed);
    }
    UNSCOPED_INFO(contract << ": " << seen);
    CHECK(seen >= wanted);
  }
}
