#include "../budget_head.hpp"
#include "../judge.hpp"
#include "../proved/proved_bound.hpp"
#include "../proved/proved_ratio.hpp"
#include "drawn_problem.hpp"
#include "pushed.hpp"

#include "../../kernels/kernel.hpp"

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <numeric>

using namespace kdacheck;
using namespace kdacheck::testing;

namespace {

/// Direction in which each kind of step errs: -1, 0 (exact) or 1.
struct Push {
  double operand = 0, exponential = 0, accumulate = 0, state = 0, beta = 0;
  static constexpr std::array members{&Push::operand, &Push::exponential, &Push::accumulate, &Push::state, &Push::beta};
};

/// The general recurrence in fp64, erring as much as its contract allows: o [tokens,V] and then the state [K,V].
std::vector<double> pushed_run(const Contract& contract, const Head& head, const Push& push) {
  const std::int64_t K = head.K, V = head.V;
  const auto at = [](std::int64_t i) { return static_cast<std::size_t>(i); };
  const auto operand = [&](double x) { return x * (1 + push.operand * unit_roundoff(contract.operands)); };
  const auto summed = [&](double sum, double size, std::int64_t n) {
    return sum + push.accumulate * static_cast<double>(n) * unit_roundoff(contract.accumulate) * size;
  };
  std::vector<double> out, S = head.state;
  for (double& s : S) s *= 1 + push.state * (contract.state == Format::fp32 ? 0 : unit_roundoff(contract.state));
  for (std::int64_t t = 0; t < head.tokens; ++t) {
    std::vector<double> a(at(K)), b(a), k(a), alpha(a), read(at(V)), o(at(V));
    for (std::int64_t c = 0; c < K; ++c) {
      const std::size_t entry = at(t * K + c);
      const double beta = head.dplr ? 0 : head.beta[at(t)] * (1 + push.beta * head.beta_error[at(t)]);
      alpha[at(c)] = std::exp(head.g[entry]) * (1 + push.exponential * 2 * contract.exp_ulp * 0x1p-24);
      k[at(c)] = operand(head.dplr ? head.k[entry] : beta * head.k[entry]);
      a[at(c)] = operand(head.dplr ? head.a[entry] : beta * head.k[entry]);
      b[at(c)] = operand(head.dplr ? head.b[entry] : alpha[at(c)] * head.k[entry]);
    }
    for (std::int64_t j = 0; j < V; ++j) {
      double sum = 0, size = 0;
      for (std::int64_t c = 0; c < K; ++c) {
        const double term = b[at(c)] * operand(S[at(c * V + j)]);
        sum += term, size += std::abs(term);
      }
      read[at(j)] = operand(summed(sum, size, K));
    }
    const bool stored = (t + 1) % contract.chunk == 0 || t + 1 == head.tokens;
    for (std::int64_t j = 0; j < V; ++j) {
      double sum = 0, size = 0;
      for (std::int64_t c = 0; c < K; ++c) {
        double& s = S[at(c * V + j)];
        const double kept = alpha[at(c)] * s, erased = a[at(c)] * read[at(j)], written = k[at(c)] * operand(head.v[at(t * V + j)]);
        s = summed(kept - erased + written, std::abs(kept) + std::abs(erased) + std::abs(written), 2);
        s *= 1 + push.state * unit_roundoff(stored ? contract.state : Format::fp32);
        const double term = operand(head.scale * head.q[at(t * K + c)]) * operand(s);
        sum += term, size += std::abs(term);
      }
      o[at(j)] = summed(sum, size, K);
    }
    out.insert(out.end(), o.begin(), o.end());
  }
  out.insert(out.end(), S.begin(), S.end());
  return out;
}

Problem problem_of(Rule rule, std::uint64_t seed, double decay, double size) {
  Drawn drawn;
  drawn.shape = {.B = 1, .T = 40, .H = 1, .HV = 1, .K = 8, .V = 3};
  drawn.rule = rule, drawn.seed = seed, drawn.decay = decay;
  Problem problem = draw(drawn);
  for (float& x : problem.a) x *= static_cast<float>(size);
  return problem;
}

double worst_ratio(const Contract& contract, const Problem& problem) {
  const ProvedBound bound = proved_bound(contract, problem);
  std::vector<std::int64_t> columns(static_cast<std::size_t>(problem.shape.V));
  std::iota(columns.begin(), columns.end(), 0);
  const Head head = read_head(contract, problem, sequences(problem)[0], 0, columns);
  const auto V = static_cast<std::size_t>(head.V), tokens = static_cast<std::size_t>(head.tokens);
  const std::vector<double> exact = pushed_run(contract, head, {});
  double worst = 0;
  const auto compare = [&](const Push& push) {
    const std::vector<double> run = pushed_run(contract, head, push);
    for (std::size_t i = 0; i < run.size(); ++i)
      worst = std::max(worst, std::abs(run[i] - exact[i]) / (i / V < tokens ? bound.token[i / V] : bound.state_row[i / V - tokens]));
  };
  for_each_push<Push>(11, 11, compare);
  return worst;
}

} // namespace

TEST_CASE("one token of ones by the general rule: the bound is the sum of its roundings") {
  Problem p;
  p.shape = {.B = 1, .T = 1, .H = 1, .HV = 1, .K = 1, .V = 1};
  p.options.rule = Rule::dplr;
  p.options.scale = 1;
  p.q = p.k = p.v = p.a = p.b = p.initial_state = {1};
  p.g = {0};
  const double u = 0x1p-8;
  // S' = S - a (b S) + k v: b, S, a, b S; k, v; o = q S'
  const ProvedBound bf16 = proved_bound(contract_of("rule=dplr order=recurrence operands=bf16"), p);
  INFO("o " << bf16.token[0] / u << " u, state " << bf16.state_row[0] / u << " u");
  CHECK(bf16.state_row[0] > 6 * u);
  CHECK(bf16.state_row[0] < 6.2 * u);
  CHECK(bf16.token[0] > 8 * u);
  CHECK(bf16.token[0] < 8.3 * u);
  const ProvedBound fp32 = proved_bound(contract_of("rule=dplr order=recurrence"), p);
  CHECK(fp32.state_row[0] > 20 * 0x1p-24);
  CHECK(fp32.state_row[0] < 100 * 0x1p-24);
  // a state stored in bf16 is rounded where it is stored, and may be before the first token: |D - a b^T| is 0 here, a (b S) is not
  const ProvedBound stored = proved_bound(contract_of("rule=dplr order=recurrence state=bf16"), p);
  CHECK(stored.state_row[0] > u);
}

TEST_CASE("the worst legal evaluations of the general recurrence stay inside the bound, and come near enough to need each term") {
  struct Kind {
    const char* text;
    double near; ///< what their largest error / bound must reach
  };
  for (const Kind& kind :
       {Kind{"order=recurrence", 0.02}, Kind{"order=recurrence operands=bf16", 0.1}, Kind{"order=recurrence state=bf16 chunk=16", 0.1},
        Kind{"order=recurrence exp_ulp=20000", 0.1}, Kind{"order=recurrence accumulate=bf16", 0.02},
        Kind{"order=recurrence operands=tf32 state=fp16 chunk=1", 0.1}}) {
    const Contract contract = contract_of(kind.text + std::string(" rule=dplr"));
    double closest = 0;
    for (double decay : {0.0, 1e-3, 0.3, 5.0})
      for (double size : {0.1, 1.0, 3.0}) {
        const double ratio = worst_ratio(contract, problem_of(Rule::dplr, 3, decay, size));
        INFO(kind.text << ", decay " << decay << ", a times " << size << ": " << ratio);
        CHECK(ratio <= 1);
        closest = std::max(closest, ratio);
      }
    INFO(kind.text << " comes within " << closest);
    CHECK(closest > kind.near);
  }
}

TEST_CASE("KDA through the general recurrence stays inside the bound of an undeclared order") {
  for (const char* text : {"chunk=16", "chunk=16 operands=bf16", "chunk=16 exp_ulp=20000"})
    for (double decay : {0.0, 0.05, 2.0}) {
      const double ratio = worst_ratio(contract_of(text), problem_of(Rule::kda, 5, decay, 1));
      INFO(text << ", decay " << decay << ": " << ratio);
      CHECK(ratio <= 1);
      CHECK(ratio > 0);
    }
}

TEST_CASE("the right kernel stays far below its bound; one that reads a, b, k or v in bf16 is refused as proved") {
  const auto kernel = std::ranges::find(built_in_kernels(), std::string("cpu.dplr.recurrence.fp32"), &Kernel::name);
  REQUIRE(kernel != built_in_kernels().end());
  double closest = 0;
  for (double decay : {0.0, 0.05, 3.0})
    for (std::uint64_t seed : {1, 2, 3}) {
      Drawn drawn;
      drawn.shape = {.B = 1, .T = 60, .H = 1, .HV = 1, .K = 32, .V = 16};
      drawn.rule = Rule::dplr, drawn.decay = decay, drawn.seed = seed, drawn.formats.qkv = Format::fp32;
      const Problem problem = draw(drawn);
      const ProvedCase proved(kernel->contract, problem);
      const double ratio = proved.ratio(run_forward(*kernel, problem));
      INFO("decay " << decay << ", seed " << seed << ": " << ratio);
      CHECK(ratio < 0.2);
      closest = std::max(closest, ratio);
      for (Input input : {Input::a, Input::b, Input::k, Input::v}) {
        Problem misread = problem;
        for (float& x : misread[input]) x = round_to(Format::bf16, x);
        const Run wrong = run_forward(*kernel, misread);
        INFO(name(input) << " in bf16: " << proved.ratio(wrong));
        Judge judge;
        CHECK(judge.forward(kernel->contract, problem, wrong).verdict == Verdict::failed_proved);
      }
    }
  CHECK(closest > 1e-3);
}
