// The decode step of the planted kernels: right without a fault, and wrong with one though the forward pass is right.

#include "checked.hpp"

#include "../../kernels/faults/faults.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <vector>

using namespace kdacheck;

namespace {

const std::vector<const char*> laws{"a-decode-chain-is-the-recurrence", "decode-goes-on-from-a-prefill"};

} // namespace

TEST_CASE("a decode step without a fault is right on every regime") {
  FaultInfo none = *std::ranges::find(planted_faults(), "decode-state-bf16", &FaultInfo::name);
  none.fault = Fault::none;
  const Kernel right = faulty_kernel(none);
  REQUIRE(right.decode);
  Judge judge;
  int decided = 0;
  for (const char* law : laws)
    for (const Regime& regime : regimes()) {
      const Recipe recipe = fitted(regime.draw(1, Tier::quick), right.contract);
      const Finding finding = tests::checked(right, tests::property_named(law), recipe, judge);
      INFO(law << " on " << regime.name << ": " << finding.detail);
      CHECK_FALSE(is_failure(finding.verdict));
      decided += finding.verdict == Verdict::passed;
    }
  CHECK(decided > 50);
}

TEST_CASE("each fault of decoding breaks the laws of decode steps, and agrees with the oracle in its forward pass") {
  int planted = 0;
  for (const FaultInfo& info : planted_faults()) {
    const Kernel wrong = faulty_kernel(info);
    if (!wrong.decode) continue;
    ++planted;
    INFO(info.name);
    Judge judge;
    int broken = 0, passed = 0;
    for (const char* regime : {"usual-decay", "gaussian-keys", "many-heads-and-batches", "converged-memory"}) {
      for (std::uint64_t seed : {1, 2, 3}) {
        const Recipe recipe = fitted(regime_named(regime)->draw(seed, Tier::quick), wrong.contract);
        for (const char* law : laws) broken += is_failure(tests::checked(wrong, tests::property_named(law), recipe, judge).verdict);
        const Finding forward = tests::checked(wrong, tests::property_named("agrees-with-the-oracle"), recipe, judge);
        CHECK_FALSE(is_failure(forward.verdict));
        passed += forward.verdict == Verdict::passed;
      }
    }
    CHECK(broken > 0);
    CHECK(passed > 0);
  }
  CHECK(planted == 4);
}
