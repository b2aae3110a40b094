#include "../judge.hpp"
#include "../perturbed/lanes.hpp"
#include "drawn_problem.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

using namespace kdacheck;
using namespace kdacheck::testing;

namespace {

Contract contract_of(Format operands, Format output) {
  Contract contract;
  contract.operands = contract.scores = operands;
  contract.output = output;
  contract.chunk = 16;
  return contract;
}

/// What a kernel without any error but its last rounding writes.
Run right_by_construction(const Problem& problem, Format output) {
  const Truth truth = forward_truth(problem, Arithmetic::double_double);
  Run run;
  for (double x : truth.o.value) run.o.push_back(round_to(output, static_cast<float>(x)));
  for (double x : truth.final_state.value) run.final_state.push_back(static_cast<float>(x));
  return run;
}

} // namespace

TEST_CASE("the truth rounded to the output passes with nothing to spare used") {
  Judge judge;
  for (Format output : {Format::bf16, Format::fp16, Format::fp32}) {
    const Problem problem = draw({});
    const Finding finding = judge.forward(contract_of(Format::fp32, output), problem, right_by_construction(problem, output));
    INFO(finding.detail << " " << name(output));
    CHECK(finding.verdict == Verdict::passed);
    CHECK(finding.bound_util < 1e-6); // double rounding through fp32 may show in the 30th bit
  }
}

TEST_CASE("noise of a group passes within its bound and is refused beyond it") {
  Judge judge;
  const Problem problem = draw({});
  const Contract contract = contract_of(Format::bf16, Format::fp32);
  const auto budget = judge.forward_budget(contract, problem);
  const auto [B, T, H, HV, K, V] = problem.shape;
  const Run right = right_by_construction(problem, Format::fp32);
  const auto add = [&](std::vector<float>& values, std::int64_t first, std::int64_t count, std::int64_t stride, double size) {
    for (std::int64_t i = 0; i < count; ++i)
      values[static_cast<std::size_t>(first + i * stride)] += static_cast<float>((i % 2 ? -1 : 1) * size);
  };
  const auto verdict = [&](double times, int group) {
    Run run = right;
    switch (group) {
    case 0: add(run.o, 17 * V, V, 1, times * budget->output.token[17]); break;
    case 1: add(run.o, 3, T, V, times * budget->output.channel[3]); break;
    case 2: add(run.final_state, 5 * V, V, 1, times * budget->output.state_row[5]); break;
    default: add(run.final_state, 7, K, V, times * budget->output.state_column[7]); break;
    }
    return judge.forward(contract, problem, run);
  };
  const char* tensor[] = {"o", "o", "final_state", "final_state"};
  for (int group = 0; group < 4; ++group) {
    INFO("group " << group);
    CHECK(verdict(1.0, group).verdict == Verdict::passed);
    const Finding beyond = verdict(12, group);
    CHECK(beyond.verdict == Verdict::failed_statistical);
    CHECK(beyond.bound_util > 1);
    REQUIRE(beyond.place);
    CHECK(beyond.place->tensor == tensor[group]);
  }
  const Finding token = verdict(12, 0);
  CHECK(token.place->token == 17);
  CHECK(token.place->chunk_position == 1);
  CHECK(verdict(12, 2).place->row == 5);
  CHECK(verdict(12, 3).place->channel == 7);
}

TEST_CASE("anything not finite is refused, whatever its sign and place") {
  Judge judge;
  const Problem problem = draw({});
  const Contract contract = contract_of(Format::bf16, Format::bf16);
  constexpr float infinity = std::numeric_limits<float>::infinity();
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), infinity, -infinity})
    for (bool state : {false, true}) {
      Run run = right_by_construction(problem, Format::bf16);
      (state ? run.final_state : run.o)[77] = bad;
      const Finding finding = judge.forward(contract, problem, run);
      INFO(bad << (state ? " in the state" : " in o"));
      CHECK(finding.verdict == Verdict::failed_proved);
      CHECK(std::isinf(finding.bound_util));
      REQUIRE(finding.place);
      CHECK(finding.place->channel == 77 % problem.shape.V);
    }
}

TEST_CASE("an output beyond the largest number of its format may be infinite, of the right sign") {
  Judge judge;
  Drawn drawn;
  drawn.value_scale = 1e6;
  const Problem problem = draw(drawn);
  const Contract contract = contract_of(Format::bf16, Format::fp16);
  Run run = right_by_construction(problem, Format::fp16);
  bool overflowed = false;
  for (float x : run.o) overflowed = overflowed || std::isinf(x);
  REQUIRE(overflowed);
  CHECK(judge.forward(contract, problem, run).verdict == Verdict::passed);
  for (float& x : run.o)
    if (std::isinf(x)) {
      x = -x;
      break;
    }
  CHECK(judge.forward(contract, problem, run).verdict == Verdict::failed_proved);
}

TEST_CASE(
    "where the contract's own numbers overflow an error passes that they would excuse in range, a larger one is inconclusive, and one "
    "elsewhere is still refused") {
  Judge judge;
  Problem problem = draw({});
  const auto [B, T, H, HV, K, V] = problem.shape;
  for (std::int64_t j = 0; j < V; ++j) problem.v[static_cast<std::size_t>((T - 1) * HV * V + j)] = 1e6f; // of the last token
  const Contract contract = contract_of(Format::fp16, Format::fp32);
  const Run right = right_by_construction(problem, Format::fp32);
  CHECK(judge.forward(contract, problem, right).verdict == Verdict::passed);
  Run scaled = right, wrong = right; // scaled: as by a kernel whose operands are scaled by powers of two
  for (std::int64_t j = 0; j < V; ++j) scaled.o[static_cast<std::size_t>((T - 1) * HV * V + j)] *= j % 2 ? 1 + 0x1p-12f : 1 - 0x1p-12f;
  const Finding in_range = judge.forward(contract, problem, scaled);
  CHECK(in_range.verdict == Verdict::passed);
  CHECK(in_range.bound_util > 0.01);
  for (std::int64_t j = 0; j < V; ++j) wrong.o[static_cast<std::size_t>((T - 1) * HV * V + j)] *= 2;
  const Finding unbounded = judge.forward(contract, problem, wrong);
  CHECK(unbounded.verdict == Verdict::inconclusive);
  CHECK(unbounded.detail.find("overflows") != std::string::npos);
  for (std::int64_t j = 0; j < V; ++j) wrong.o[static_cast<std::size_t>(j)] += 1;
  CHECK(is_failure(judge.forward(contract, problem, wrong).verdict));
}

TEST_CASE("a zero of either sign is zero") {
  Judge judge;
  Drawn drawn;
  drawn.value_scale = 0;
  const Problem problem = draw(drawn);
  for (float zero : {0.0f, -0.0f}) {
    Run run = right_by_construction(problem, Format::fp32);
    for (float& x : run.o) x = zero;
    const Finding finding = judge.forward(contract_of(Format::fp32, Format::fp32), problem, run);
    CHECK(finding.verdict == Verdict::passed);
    CHECK(finding.bound_util == 0);
  }
  Run run = right_by_construction(problem, Format::fp32);
  run.o[5] = 1e-30f;
  CHECK(is_failure(judge.forward(contract_of(Format::fp32, Format::fp32), problem, run).verdict));
}

TEST_CASE("results that underflow may be flushed to zero, and not more") {
  Judge judge;
  Drawn drawn;
  drawn.value_scale = 1e-38;
  drawn.formats.qkv = Format::fp32;
  const Problem problem = draw(drawn);
  const Contract contract = contract_of(Format::fp32, Format::fp32);
  Run flushed = right_by_construction(problem, Format::fp32);
  for (float& x : flushed.o)
    if (std::abs(x) < 0x1p-126f) x = 0;
  CHECK(judge.forward(contract, problem, flushed).verdict == Verdict::passed);
  Run wrong = right_by_construction(problem, Format::fp32);
  wrong.o[5] += 1e-35f;
  CHECK(is_failure(judge.forward(contract, problem, wrong).verdict));
}

TEST_CASE("one wrong element in a million is seen") {
  Judge judge;
  Drawn drawn;
  drawn.shape = {.B = 1, .T = 2048, .H = 1, .HV = 8, .K = 8, .V = 64};
  const Problem problem = draw(drawn);
  const Contract contract = contract_of(Format::bf16, Format::bf16);
  Run run = right_by_construction(problem, Format::bf16);
  REQUIRE(run.o.size() > 1000000);
  CHECK(judge.forward(contract, problem, run).verdict == Verdict::passed);
  double squares = 0;
  for (float x : run.o) squares += x * x;
  run.o[777777] += static_cast<float>(std::sqrt(squares / static_cast<double>(run.o.size())));
  const Finding finding = judge.forward(contract, problem, run);
  CHECK(is_failure(finding.verdict));
  REQUIRE(finding.place);
  CHECK(finding.place->token == 777777 / 64 / 8);
  CHECK(finding.place->head == 777777 / 64 % 8);
}

TEST_CASE("an empty problem passes, and a wrong size or a refusal does not") {
  Judge judge;
  Drawn drawn;
  drawn.shape.T = 0;
  const Problem empty = draw(drawn);
  const Contract contract = contract_of(Format::fp32, Format::fp32);
  CHECK(judge.forward(contract, empty, right_by_construction(empty, Format::fp32)).verdict == Verdict::passed);
  const Problem problem = draw({});
  Run run = right_by_construction(problem, Format::fp32);
  run.o.pop_back();
  CHECK(judge.forward(contract, problem, run).verdict == Verdict::failed_property);
  run = {};
  run.refused = "K must be 64";
  const Finding refused = judge.forward(contract, problem, run);
  CHECK(refused.verdict == Verdict::failed_property);
  CHECK(refused.detail.find("K must be 64") != std::string::npos);
}

TEST_CASE("budgets are the same for every call and judge") {
  const Problem problem = draw({});
  const Contract contract = contract_of(Format::bf16, Format::fp32);
  const Truth truth = forward_truth(problem);
  const Budget first = forward_budget(contract, problem, truth, 7, 8), second = forward_budget(contract, problem, truth, 7, 8);
  CHECK(first.output.token == second.output.token);
  CHECK(first.output.state_row == second.output.state_row);
  CHECK(first.output.token != forward_budget(contract, problem, truth, 8, 8).output.token);
  Judge one, other;
  CHECK(one.forward_budget(contract, problem)->output.channel == other.forward_budget(contract, problem)->output.channel);
}

TEST_CASE("truths and budgets are kept for a contract and a problem: a second kernel costs hashing and comparing") {
  Drawn drawn;
  drawn.shape.T = 200;
  const Problem problem = draw(drawn);
  const Contract contract = contract_of(Format::bf16, Format::bf16);
  Judge judge;
  Contract narrower = contract; // another kernel: what does not round is no part of the key
  narrower.g_min = -5;
  CHECK(judge.forward_truth(problem) == judge.forward_truth(problem)); // the same object
  CHECK(judge.forward_budget(contract, problem) == judge.forward_budget(narrower, problem));
  Contract coarser = contract;
  coarser.state = Format::bf16;
  CHECK(judge.forward_budget(coarser, problem) != judge.forward_budget(contract, problem));
}

TEST_CASE("the oracle escalates by itself where fp64's radius is above a hundredth of the bound, and the finding says so") {
  Judge judge;
  const Problem plain = draw({});
  const Contract fp32 = contract_of(Format::fp32, Format::fp32);
  CHECK(judge.forward(fp32, plain, right_by_construction(plain, Format::fp32)).oracle.empty());
  // steps whose norms exceed 1 while their product does not grow: the oracle's radius multiplies the norms, its error does not
  Drawn drawn;
  drawn.rule = Rule::dplr, drawn.shape.T = 160, drawn.decay = 1e-3;
  const Problem growing = draw(drawn);
  Contract dplr = fp32;
  dplr.rules = {Rule::dplr};
  const Run run = right_by_construction(growing, Format::fp32);
  const Finding finding = judge.forward(dplr, growing, run);
  const Truth first = forward_truth(growing);
  const auto budget = judge.forward_budget(dplr, growing);
  double share = 0;
  for (std::size_t row = 0; row < budget->output.token.size(); ++row)
    share = std::max(share, first.o.radius[row * static_cast<std::size_t>(growing.shape.V)] / (4 * budget->output.token[row]));
  INFO("radius / bound in fp64: " << share << ", oracle " << finding.oracle << ", " << finding.detail);
  CHECK(share > 1e-2);
  CHECK(finding.verdict == Verdict::passed);
  CHECK(finding.oracle == "double_double");
  // what the graver of two findings forgets would not be said
  Finding exact;
  exact.bound_util = 2;
  CHECK(graver(exact, finding).oracle == "double_double");
  CHECK(graver(finding, exact).oracle == "double_double");
}
