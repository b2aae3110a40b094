// The backward pass of the planted kernels: right without a fault, changed by every fault.

#include "../cases/recipe.hpp"
#include "../judge.hpp"
#include "../transform.hpp"

#include "../../kernels/faults/faults.hpp"

#include <bit>
#include <catch2/catch.hpp>
#include <map>
#include <set>
#include <string>
#include <vector>

using namespace kdacheck;

namespace {

Problem problem_of(const Kernel& kernel, const Regime& regime, std::uint64_t seed) {
  const Recipe recipe = fitted(regime.draw(seed, Tier::quick), kernel.contract);
  return with_cotangents_in(make_problem(recipe, input_formats(kernel.contract)), kernel.contract.output);
}

bool differs(const Run& one, const Run& other) {
  if (one.trespasses != other.trespasses || one.refused != other.refused) return true;
  for (std::size_t i = 0; i < one.gradient.size(); ++i)
    for (std::size_t e = 0; e < one.gradient[i].size(); ++e)
      if (std::bit_cast<std::uint32_t>(one.gradient[i][e]) != std::bit_cast<std::uint32_t>(other.gradient[i][e])) return true;
  return false;
}

/// Faults that a call with every gradient wanted, dense cotangents, lengths of its own and few tokens does not show.
const std::set<std::string_view> of_other_calls{"dk-needs-dq", "dbeta-needs-dg", "do-strides-ignored",
                                                "lengths-kept-by-address-in-backward", "backward-sixteen-bit-offsets"};

} // namespace

TEST_CASE("without a fault the gradients are right under contracts of fp32 and of bf16") {
  constexpr const char* everything =
      " gates=log_decay,softplus,bounded,sigmoid,absent betas=value,sigmoid,twice_sigmoid beta_max=2 l2norm=both strided=yes";
  Judge judge;
  int judged = 0;
  for (const std::string formats : {"chunk=16", "chunk=16 input=bf16 output=bf16 operands=bf16", "chunk=64 state_layout=v_first"}) {
    const Kernel kernel = faultless_kernel("right", formats + " order=residual_first" + everything);
    for (const char* name : {"gaussian-keys", "near-identical-keys", "strong-decay", "softplus-gate", "bounded-gate", "sigmoid-gate",
                             "beta-logits", "grouped-heads", "packed", "loss-on-final-state", "zero-keys"}) {
      const Regime* regime = regime_named(name);
      if (!regime) FAIL("no regime is named " << name);
      const Problem problem = problem_of(kernel, *regime, 1);
      if (outside_domain(kernel.contract, problem)) continue;
      const Finding finding = judge.backward(kernel.contract, problem, run_backward(kernel, problem));
      INFO(formats << " " << name << ": " << finding.detail << (finding.place ? " " + to_text(*finding.place) : ""));
      CHECK(finding.verdict == Verdict::passed);
      ++judged;
    }
  }
  CHECK(judged > 20);
}

TEST_CASE("every fault of the backward pass changes a gradient or touches what it must not on some regime") {
  std::vector<const FaultInfo*> silent;
  for (const FaultInfo& info : planted_faults())
    if (info.backward && !of_other_calls.contains(info.name)) silent.push_back(&info);
  REQUIRE(silent.size() >= 35);
  for (const Regime& regime : regimes())
    for (std::uint64_t seed = 1; seed <= 8; ++seed) {
      std::map<std::string_view, std::pair<Problem, Run>> right; // by contract
      std::erase_if(silent, [&](const FaultInfo* info) {
        const Kernel faulty = faulty_kernel(*info);
        auto found = right.find(info->contract);
        if (found == right.end()) {
          const Kernel kernel = faultless_kernel("right", info->contract);
          Problem problem = problem_of(kernel, regime, seed);
          if (outside_domain(kernel.contract, problem)) return false;
          Run run = run_backward(kernel, problem, {.strided = kernel.contract.strided});
          found = right.emplace(info->contract, std::pair{std::move(problem), std::move(run)}).first;
        }
        const auto& [problem, run] = found->second;
        return differs(run, run_backward(faulty, problem, {.strided = faulty.contract.strided}));
      });
    }
  for (const FaultInfo* info : silent) {
    INFO(info->name << " changed nothing anywhere");
    CHECK(false);
  }
}

TEST_CASE("a gradient that needs another one is wrong where that is not wanted, and right where it is") {
  constexpr std::pair<const char*, std::pair<Input, Input>> needs[]{{"dk-needs-dq", {Input::k, Input::q}},
                                                                    {"dbeta-needs-dg", {Input::beta, Input::g}}};
  for (const auto& [name, tensors] : needs) {
    const FaultInfo& info = *std::ranges::find(planted_faults(), std::string_view(name), &FaultInfo::name);
    const Kernel faulty = faulty_kernel(info), right = faultless_kernel("right", info.contract);
    Recipe recipe = regime_named("usual-decay")->draw(1, Tier::quick);
    recipe.shape = {.B = 1, .T = 40, .H = 1, .HV = 1, .K = 8, .V = 8};
    recipe.lengths.clear();
    recipe.loss = LossPattern::everywhere;
    const Problem problem = make_problem(fitted(recipe, right.contract), input_formats(right.contract));
    INFO(name);
    CHECK_FALSE(differs(run_backward(right, problem), run_backward(faulty, problem)));
    RunOptions options;
    options.not_wanted[static_cast<std::size_t>(tensors.second)] = true;
    const Run expected = run_backward(right, problem, options), got = run_backward(faulty, problem, options);
    const auto i = static_cast<std::size_t>(tensors.first);
    CHECK(expected.gradient[i] != got.gradient[i]);
  }
}

TEST_CASE("a kernel with a fault of the backward pass is right in its forward pass") {
  Judge judge;
  for (const FaultInfo& info : planted_faults()) {
    const Kernel kernel = faulty_kernel(info);
    CHECK(static_cast<bool>(kernel.backward) == info.backward);
    if (!info.backward) continue;
    const Problem problem = problem_of(kernel, *regime_named("gaussian-keys"), 1);
    INFO(info.name);
    CHECK(judge.forward(kernel.contract, problem, run_forward(kernel, problem)).verdict == Verdict::passed);
  }
}
