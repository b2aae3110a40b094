// Kernels that are right in formats coarser than fp32, token by token, in chunks of the general rule and in single stages: they pass, and
// are refused once they claim to be fp32.

#include "right_variants.hpp"

#include "../../kernels/cpu/recurrence.hpp"
#include "../../kernels/faults/faults.hpp"

#include <map>

using namespace kdacheck;

namespace {

const std::vector<std::string> forward{"agrees-with-the-oracle"}, backward{"gradients-agree-with-the-oracle"};
const std::vector<std::string> cheap{"gaussian-keys",    "alternating-keys", "keys-longer-than-one", "strong-decay",
                                     "exact-overwrites", "narrow",           "packed-single-tokens"};

void passes_and_is_held_to_it(std::string_view name, const std::vector<std::vector<std::string>>& directions) {
  const Kernel& kernel = variant(name);
  INFO(name);
  for (const auto& laws : directions) {
    CHECK(refusal(kernel, laws, cheap, 2) == "");
    CHECK(refusal(claiming_fp32(kernel), laws, cheap, 1) != "");
  }
}

} // namespace

TEST_CASE("token by token in tf32 and bf16, forward and back: every operand of every product may be rounded") {
  for (const char* name : {"correct.recurrence.tf32", "correct.recurrence.tf32.dg_sums", "correct.recurrence.bf16",
                           "correct.recurrence.bf16_operands", "correct.recurrence.state_bf16"})
    passes_and_is_held_to_it(name, {forward, backward});
}

TEST_CASE("the general rule in tf32 and bf16, in chunks and token by token") {
  for (const char* name : {"correct.dplr.tf32.chunk16", "correct.dplr.tf32.truncated", "correct.dplr.bf16.chunk16",
                           "correct.dplr.recurrence.tf32", "correct.dplr.recurrence.bf16", "correct.dplr.recurrence.bf16_operands"})
    passes_and_is_held_to_it(name, {forward, backward});
  for (const char* name : {"correct.dplr.fp32.chunk32", "correct.dplr.fp32.undeclared_order", "correct.dplr.recurrence.fp32"})
    for (const auto& laws : {forward, backward}) CHECK(refusal(variant(name), laws, cheap, 2) == "");
}

TEST_CASE("stages that are coarser than the operands") {
  for (const char* name : {"correct.fp32.solve_tf32", "correct.fp32.solve_bf16", "correct.fp32.scores_tf32", "correct.fp32.scores_fp16",
                           "correct.fp32.scores_bf16", "correct.fp32.cumsum_tf32"})
    passes_and_is_held_to_it(name, {forward, backward});
  for (const char* name : {"correct.fp32.gradient_state_bf16", "correct.recurrence.gradient_state_bf16"})
    passes_and_is_held_to_it(name, {backward});
}

TEST_CASE("tf32 that is cut off errs twice as far, and to one side: a kernel that says so passes, one that says it rounds does not") {
  const std::vector<std::string> of_regimes{"reflections", "decay-per-channel", "strong-decay", "beta-tiny", "near-identical-keys"};
  for (const char* name : {"correct.tf32.truncated", "correct.recurrence.tf32.dg_sums"}) {
    const Kernel& kernel = variant(name);
    INFO(name);
    for (const auto& laws : {forward, backward}) CHECK(refusal(kernel, laws, of_regimes, 3) == "");
    Contract rounding = kernel.contract;
    rounding.truncate = false;
    CHECK(refusal(claiming(kernel, to_text(rounding)), forward, of_regimes, 3) != "");
  }
}

TEST_CASE("fp16 without a largest value: what a format cannot hold is not judged, all else is") {
  // no right variant: laws other than those of the oracle refuse what is not finite
  const Kernel kernel = faultless_kernel("fp16.any_value", "order=residual_first chunk=16 input=fp16 output=fp16 operands=fp16 beta_max=2");
  for (const auto& laws : {forward, backward}) CHECK(refusal(kernel, laws, cheap, 2) == "");
  CHECK(refusal(claiming_fp32(kernel), forward, cheap, 1) != "");
  Judge judge;
  std::map<Verdict, int> met;
  for (const Property& law : properties())
    if (law.name == std::string_view(forward.front()))
      for (std::uint64_t seed = 1; seed <= 3; ++seed)
        ++met[run_case(kernel, law, fitted(regime_named("large-values")->draw(seed, Tier::quick), kernel.contract), judge).finding.verdict];
  CHECK(met[Verdict::inconclusive] > 0);
  CHECK(met[Verdict::passed] > 0);
}

TEST_CASE("a decode step is held to the formats of a contract that declares chunks, whatever it computes in") {
  const std::string text = "input=bf16 output=bf16 l2norm=both beta_max=2 validates=no";
  const std::vector<std::string> chain{"a-decode-chain-is-the-recurrence"};
  const std::vector<std::string> of_regimes{"gaussian-keys", "converged-memory", "narrow", "slow-decay"};
  const auto decoding = [&](const std::string& as) {
    Kernel kernel = cpu::recurrence("decodes" + as, "", *parse_contract(text + as).contract);
    return claiming(kernel, text + " operands=bf16 order=residual_first chunk=64 decode=1..64");
  };
  CHECK(refusal(decoding(" operands=bf16"), chain, of_regimes, 2) == "");
  CHECK(refusal(decoding(" operands=fp32"), chain, of_regimes, 2) == "");
  CHECK(refusal(decoding(" state=bf16"), chain, of_regimes, 2) != "");
}
