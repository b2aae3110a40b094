#include "../proved/proved_bound.hpp"
#include "../judge.hpp"
#include "../proved/proved_ratio.hpp"
#include "../proved/proved_solve.hpp"
#include "drawn_problem.hpp"
#include "legal_worst.hpp"
#include "pushed.hpp"

#include "../../kernels/faults/faults.hpp"
#include "../../kernels/kernel.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>

using namespace kdacheck;
using namespace kdacheck::testing;

namespace {

/// One token, one channel, everything 1: o = scale q k beta v = 1, S = beta k v = 1.
Problem of_ones() {
  Problem p;
  p.shape = {.B = 1, .T = 1, .H = 1, .HV = 1, .K = 1, .V = 1};
  p.options.scale = 1;
  p.q = p.k = p.v = p.beta = {1};
  p.g = {0};
  return p;
}

/// The contract's legal evaluations with their errors in the worst direction: largest error / bound of o and the state.
double worst_ratio(const Contract& contract, const Problem& problem) {
  const ProvedBound bound = proved_bound(contract, problem);
  const Sequence sequence = sequences(problem)[0];
  const Head head = read_head(contract, problem, sequence, 0, choose_columns(column_sizes(problem, sequence, 0), problem.shape.V));
  std::vector<Order> orders{contract.order};
  if (contract.order == Order::undeclared) orders = {Order::residual_first, Order::wy};
  double worst = 0;
  for (Order order : orders)
    for (std::int64_t length = contract.chunk; length == contract.chunk || length >= 16; length /= 2) {
      const Evaluated exact = LegalWorst(contract, head, {}).run(order, length);
      const auto compare = [&](const Pushes& pushes) {
        const Head near = head.normalised ? with_rows_rounded(contract, pushes.norm, head) : head;
        const Evaluated pushed = LegalWorst(contract, near, pushes).run(order, length);
        for (std::size_t i = 0; i < exact.o.size(); ++i)
          worst = std::max(worst, std::abs(pushed.o[i] - exact.o[i]) / bound.token[i / static_cast<std::size_t>(head.V)]);
        for (std::size_t i = 0; i < exact.state.size(); ++i)
          worst = std::max(worst, std::abs(pushed.state[i] - exact.state[i]) / bound.state_row[i / static_cast<std::size_t>(head.V)]);
      };
      for_each_push<Pushes>(7, 5, compare);
    }
  return worst;
}

Drawn small(std::uint64_t seed, double decay, double correlation, double beta) {
  Drawn d;
  d.shape = {.B = 1, .T = 40, .H = 1, .HV = 1, .K = 8, .V = 3};
  d.decay = decay, d.correlation = correlation, d.beta_most = beta, d.seed = seed;
  return d;
}

} // namespace

TEST_CASE("one token of ones: the bound is the sum of its roundings") {
  const Problem p = of_ones();
  const double u = 0x1p-8, f = 0x1p-24;
  for (const char* order : {"residual_first", "wy"}) {
    const ProvedBound bf16 = proved_bound(contract_of(std::string("operands=bf16 order=") + order), p);
    // two operands of Aqk, itself, beta v (residual), T, U: six roundings to bf16; U0 before U in wy
    const double of_o = order == std::string("wy") ? 7 * u : 6 * u, of_state = of_o - 2 * u; // kr in the place of Aqk's three
    INFO(order << ": o " << bf16.token[0] / u << " u, state " << bf16.state_row[0] / u << " u");
    CHECK(bf16.token[0] > of_o);
    CHECK(bf16.token[0] < 1.03 * of_o);
    CHECK(bf16.state_row[0] > of_state);
    CHECK(bf16.state_row[0] < 1.03 * of_state);
  }
  const ProvedBound fp32 = proved_bound(contract_of("order=residual_first"), p);
  // gamma_n = (2.5 n + 8) u of one-term sums, which tensor cores may still truncate: of the residual and o with n = 2, of
  // Aqk, solve and T Z with n = 1, 57.5 u; six operands; products and exponentials of one operation each
  CHECK(fp32.token[0] > 60 * f);
  CHECK(fp32.token[0] < 90 * f);
  // a state stored in bf16 adds half an ulp of 1, and nothing to o
  const ProvedBound stored = proved_bound(contract_of("order=residual_first state=bf16"), p);
  CHECK(stored.token[0] == fp32.token[0]);
  CHECK(stored.state_row[0] > u);
  CHECK(stored.state_row[0] < 1.01 * u);
  // truncation doubles the operands' units
  const double rounded = proved_bound(contract_of("order=residual_first operands=tf32"), p).token[0];
  const double cut = proved_bound(contract_of("order=residual_first operands=tf32 tf32=truncate"), p).token[0];
  CHECK(cut > 1.95 * rounded);
  CHECK(cut < 2.05 * rounded);
}

TEST_CASE("one token that reads back a state of 1 and writes nothing new: two operands more in U, two in o") {
  Problem p = of_ones();
  p.v = {0};
  p.initial_state = {1};
  const double u = 0x1p-8;
  // o = qd S + Aqk U, U = -T beta kd S: qd, S; three in Aqk; kd, S, Z, T, U. wy rounds beta kd and W in the
  // place of Z, and its bound counts S twice.
  for (const auto& [order, of_o] : {std::pair{"residual_first", 10 * u}, std::pair{"wy", 12 * u}}) {
    const ProvedBound bf16 = proved_bound(contract_of(std::string("operands=bf16 order=") + order), p);
    INFO(order << ": o " << bf16.token[0] / u << " u, state " << bf16.state_row[0] / u << " u");
    CHECK(bf16.token[0] > of_o);
    CHECK(bf16.token[0] < 1.05 * of_o);
    CHECK(bf16.state_row[0] > of_o - 4 * u); // kr in the place of qd, S and Aqk's three
    CHECK(bf16.state_row[0] < 1.05 * (of_o - 4 * u));
  }
}

TEST_CASE("sums, beta and norms of tiny cases count as they must") {
  Problem p = of_ones();
  // gamma_n of truncating bf16 sums is (1.25 n + 4) 2^-7 and more: n = 2 for the residual and o, n = 1 for Aqk, solve and T Z
  for (const char* order : {"residual_first", "wy"}) {
    const double sums = proved_bound(contract_of(std::string("accumulate=bf16 order=") + order), p).token[0];
    CHECK(sums > (2 * 6.5 + 3 * 5.25) * 0x1p-7);
    CHECK(sums < 1.2 * (2 * 6.5 + 3 * 5.25) * 0x1p-7);
  }
  // beta = 1/2, with an error of eta by its own exp, as has each of the two exponentials of Aqk
  p.options.beta = BetaForm::sigmoid;
  p.beta = {0};
  const double eta = 0x1p-8;
  const Contract rough = contract_of("exp_ulp=32768 order=residual_first betas=sigmoid");
  const double one = proved_bound(rough, p).token[0];
  CHECK(one > 0.5 * (2 * eta + eta));
  CHECK(one < 1.05 * 0.5 * (2 * eta + eta));
  // a second token without a value: U = 1/2, -1/4; dU_1 = eta / 2; dU_2 = (2 eta + eta) / 4 by L and dZ_1 / 2 through T
  p.shape.T = 2;
  p.q = p.k = {1, 1}, p.v = {1, 0}, p.beta = {0, 0}, p.g = {0, 0};
  const double two = proved_bound(rough, p).token[1], due = (0.5 + 0.25) * 2 * eta + 0.5 * eta + 0.75 * eta + 0.25 * eta;
  CHECK(two > due);
  CHECK(two < 1.05 * due);
  // a state that only decays: eta of e^-1; one kept in bf16 is rounded where it is stored, and perhaps where it is read
  Problem kept = of_ones();
  kept.beta = {0}, kept.initial_state = {1}, kept.g = {-1};
  CHECK(proved_bound(contract_of("exp_ulp=32768 order=residual_first"), kept).state_row[0] > eta * std::exp(-1));
  kept.g = {0};
  CHECK(proved_bound(contract_of("state=bf16 order=residual_first"), kept).state_row[0] > 2 * 0x1p-8);
  // a norm taken inside rounds q and k once more each
  Problem normed = of_ones();
  const double plain = proved_bound(contract_of("operands=bf16 order=residual_first l2norm=both"), normed).token[0];
  normed.options.l2norm = true;
  const double inside = proved_bound(contract_of("operands=bf16 order=residual_first l2norm=both"), normed).token[0];
  CHECK(inside - plain > 1.99 * 0x1p-8);
  CHECK(inside - plain < 2.1 * 0x1p-8);
}

TEST_CASE("what no contract excuses has no bound: overflow of fp16, sums in bf16 that are longer than its digits") {
  Problem p = of_ones();
  p.v = {70000};
  CHECK(std::isinf(proved_bound(contract_of("operands=fp16 order=residual_first"), p).token[0]));
  CHECK(std::isfinite(proved_bound(contract_of("operands=bf16 order=residual_first"), p).token[0]));
  p.v = {0x1p-20};
  const double tiny = proved_bound(contract_of("operands=fp16 order=residual_first"), p).token[0];
  CHECK(tiny > 3 * 0x1p-25);  // Z, U and Aqk lie on the subnormal grid
  CHECK(tiny < 11 * 0x1p-25); // and every operand of every product, zeros too: 3 before Z, 5 before o
  Drawn d = small(1, 0.01, 0, 1);
  d.shape.K = 200;
  CHECK(std::isinf(proved_bound(contract_of("accumulate=bf16 order=residual_first"), draw(d)).token[0]));
  for (const char* order : {"residual_first", "recurrence"}) { // not derived
    const ProvedBound sums = proved_bound(contract_of(std::string("accumulate=fp16 order=") + order), of_ones());
    CHECK(std::isinf(sums.token[0]));
    CHECK(std::isinf(sums.state_row[0]));
  }
}

TEST_CASE("the worst legal evaluations of every contract stay inside the bound, and come near enough to need each term") {
  struct Kind {
    const char* text;
    double near; ///< what their largest error / bound must reach: a bound without the term that this contract makes large is passed
  };
  for (const Kind& kind :
       {Kind{"order=residual_first", 0.02}, Kind{"order=wy", 0.02}, Kind{"chunk=32", 0.02}, Kind{"order=residual_first operands=bf16", 0.2},
        Kind{"order=residual_first operands=bf16 scores=fp32", 0.2}, Kind{"order=wy operands=bf16 scores=fp32", 0.2},
        Kind{"order=residual_first operands=fp32 scores=bf16", 0.2}, Kind{"order=residual_first operands=tf32 tf32=truncate chunk=32", 0.2},
        Kind{"order=residual_first operands=fp16 scores=tf32 chunk=16", 0.2}, Kind{"order=residual_first state=bf16 chunk=16", 0.2},
        Kind{"order=wy state=bf16 chunk=32", 0.2}, Kind{"order=residual_first cumsum=bf16", 0.05},
        Kind{"order=residual_first exp_ulp=20000", 0.2}, Kind{"order=residual_first solve=bf16", 5e-4},
        Kind{"order=residual_first accumulate=bf16", 0.01}}) {
    const Contract contract = contract_of(kind.text);
    double closest = 0;
    for (double decay : {0.0, 1e-3, 0.3, 5.0})
      for (double correlation : {0.0, 0.95})
        for (double beta : {0.5, 2.0}) {
          const double ratio = worst_ratio(contract, draw(small(3, decay, correlation, beta)));
          INFO(kind.text << ", decay " << decay << ", correlation " << correlation << ", beta to " << beta << ": " << ratio);
          CHECK(ratio <= 1);
          closest = std::max(closest, ratio);
        }
    INFO(kind.text << " comes within " << closest);
    CHECK(closest > kind.near);
  }
}

TEST_CASE("a solve in fp16 loses what lies below its smallest numbers") {
  for (const char* order : {"order=residual_first", "order=wy"})
    for (const bool earlier : {false, true}) { // large values where T has little of them: of every other token, or of an earlier block
      const Contract contract = contract_of(std::string(earlier ? "chunk=32" : "chunk=16") + " solve=fp16 " + order);
      double closest = 0;
      for (double decay : {0.3, 3.0, 9.0})
        for (double values : {1.0, 1e4}) {
          Problem problem = draw(small(3, decay, 0.5, 1));
          for (std::size_t i = 0; i < problem.v.size(); ++i)
            if (earlier ? i / 3 < 16 : i / 3 % 2 == 0) problem.v[i] = std::abs(problem.v[i]) * static_cast<float>(values);
          const double ratio = worst_ratio(contract, problem);
          INFO(to_text(contract) << ", decay " << decay << ", values of " << values << ": " << ratio);
          CHECK(ratio <= 1);
          closest = std::max(closest, ratio);
        }
      INFO(to_text(contract) << " comes within " << closest);
      CHECK(closest > 0.01);
    }
}

TEST_CASE("rows that are normalised inside in fp16 lose what lies below its smallest numbers") {
  for (const char* order : {"residual_first", "wy"}) {
    const Contract contract = contract_of(std::string("chunk=32 operands=fp16 scores=fp32 l2norm=both order=") + order);
    double closest = 0;
    for (double decay : {1e-3, 0.3})
      for (double values : {1.0, 1e4}) {
        Drawn drawn = small(3, decay, 0, 1);
        drawn.shape.T = 32, drawn.shape.K = 32, drawn.state = false;
        const double ratio = worst_ratio(contract, in_halves(draw(drawn), values));
        INFO(order << ", decay " << decay << ", values of " << values << ": " << ratio);
        CHECK(ratio <= 1);
        closest = std::max(closest, ratio);
      }
    INFO(order << " comes within " << closest);
    CHECK(closest > 0.1);
  }
}

TEST_CASE("where a number of a solve in fp16 may exceed its largest nothing is known") {
  Problem large = draw(small(3, 1e-3, 0.3, 0.5));
  for (const char* text : {"chunk=16 solve=fp16 order=residual_first", "chunk=16 solve=fp16 order=wy"}) {
    const auto last = [&](const std::string& more) { return proved_bound(contract_of(text + more), large).token[39]; };
    large.v[0] = 1;
    CHECK(std::isfinite(last("")));
    large.v[0] = 1e6; // in a solution
    CHECK(std::isinf(last("")));
    CHECK(std::isfinite(proved_bound(contract_of("chunk=16 order=residual_first"), large).token[39]));
  }
  // in L, in T alone
  for (const double below : {1.5e4, 7e4}) {
    const ProvedUnits units(contract_of("solve=fp16"));
    BoundMatrix L, none, size, error;
    for (BoundMatrix* m : {&L, &none}) m->resize(4, 4);
    L[1][0] = below, L[2][1] = below < 65504 ? 2 : 1e-3;
    size.resize(4, 1), error.resize(4, 1);
    SolveBound solve;
    solve.enter(units, 4, L, none);
    BoundMatrix into;
    solve.solve(1, size, error, size, into);
    CHECK(std::isfinite(into[0][0]));
    CHECK(std::isfinite(into[1][0]) == (below < 65504));
    CHECK(std::isinf(into[2][0]));
    CHECK(std::isinf(into[3][0]));
  }
}

TEST_CASE("gates, logits and norms resolved inside the kernel are inside the bound at their worst") {
  double closest = 0;
  for (GateForm gate : {GateForm::softplus, GateForm::bounded, GateForm::sigmoid})
    for (const char* text : {"exp_ulp=20000 order=residual_first", "exp_ulp=20000 order=wy", "accumulate=bf16 order=residual_first"}) {
      Drawn drawn = small(5, 0.05, 0.3, 1);
      drawn.shape.T = 20;
      Problem problem = draw(drawn);
      problem.options.gate = gate;
      problem.options.beta = BetaForm::twice_sigmoid;
      problem.options.l2norm = true;
      for (float& x : problem.g) x = 40 * (x + 0.05f);
      if (gate != GateForm::sigmoid) {
        problem.A_log = {-1};
        problem.dt_bias.assign(8, 0.1f);
      }
      const double ratio = worst_ratio(contract_of(text), problem);
      INFO(name(gate) << " " << text << ": " << ratio);
      CHECK(ratio <= 1);
      closest = std::max(closest, ratio);
    }
  CHECK(closest > 0.1);
}

TEST_CASE("correct kernels stay inside the bound at every decay, beta, correlation, length and format") {
  constexpr std::string_view all = " l2norm=both beta_max=2";
  std::vector<Kernel> kernels;
  for (const char* text : {"chunk=16 order=residual_first", "chunk=64", "chunk=48 order=residual_first operands=bf16",
                           "chunk=32 order=wy operands=tf32 tf32=truncate", "chunk=16 order=residual_first operands=fp16 scores=tf32",
                           "chunk=16 order=residual_first state=bf16", "chunk=32 order=wy operands=bf16 state=fp16"})
    kernels.push_back(faultless_kernel(text, std::string(text) + std::string(all)));
  for (const Kernel& kernel : built_in_kernels())
    if (kernel.name == "cpu.recurrence.fp32" || kernel.name == "cpu.kda_via_dplr.chunk16.fp32" || kernel.name == "cpu.dplr.chunk64.bf16" ||
        kernel.name == "cpu.dplr.recurrence.fp32")
      kernels.push_back(kernel);
  int cases = 0;
  double closest = 0;
  for (const Kernel& kernel : kernels)
    for (double decay : {0.0, 1e-3, 0.5, 6.0, 100.0})
      for (double beta : {1e-4, 1.0, 2.0})
        for (std::int64_t T : {1, 30, 100})
          for (std::uint64_t seed : {1, 2}) {
            Drawn drawn;
            drawn.shape = {.B = 1, .T = T, .H = 1, .HV = 1, .K = 17, .V = 5};
            drawn.rule = kernel.contract.rules[0];
            drawn.decay = decay, drawn.beta_most = beta, drawn.correlation = seed == 2 ? 0.9 : 0, drawn.seed = seed;
            const Problem problem = draw(drawn);
            if (outside_domain(kernel.contract, problem)) continue;
            const double ratio = ProvedCase(kernel.contract, problem).ratio(run_forward(kernel, problem));
            INFO(kernel.name << ", decay " << decay << ", beta to " << beta << ", T " << T);
            CHECK(ratio <= 1);
            closest = std::max(closest, ratio);
            ++cases;
          }
  CHECK(cases > 800);
  CHECK(closest > 0.05); // a bound that nothing comes near proves nothing
}

TEST_CASE("planted faults are proved on one chunk, under coarse operands too") {
  struct Planted {
    const char *fault, *contract;
  };
  constexpr const char* fp32 = "chunk=16 order=residual_first l2norm=both beta_max=2";
  constexpr const char* bf16 = "chunk=16 order=residual_first l2norm=both beta_max=2 operands=bf16";
  Drawn drawn;
  drawn.shape = {.B = 1, .T = 16, .H = 1, .HV = 1, .K = 16, .V = 8};
  drawn.correlation = 0.3;
  const Problem problem = draw(drawn);
  drawn.beta_most = 0; // transport alone: nothing but decays is rounded
  const Problem transport = draw(drawn);
  for (const Planted& planted :
       {Planted{"first-order-inverse", fp32}, Planted{"beta-bf16", fp32}, Planted{"residual-bf16", fp32}, Planted{"alpha-bf16", fp32},
        Planted{"state-bf16", fp32}, Planted{"scores-tf32", fp32}, Planted{"no-delta-term", bf16}, Planted{"alpha-bf16", bf16},
        Planted{"state-bf16", bf16}, Planted{"no-decay", bf16}}) {
    for (FaultInfo info : planted_faults()) {
      if (info.name != planted.fault) continue;
      info.contract = planted.contract;
      const Kernel kernel = faulty_kernel(info);
      INFO(planted.fault << " under " << planted.contract);
      const bool writes = ProvedCase(kernel.contract, problem).ratio(run_forward(kernel, problem)) > 1;
      const Problem& where = writes ? problem : transport;
      CHECK(ProvedCase(kernel.contract, where).ratio(run_forward(kernel, where)) > 1);
      Judge judge;
      CHECK(judge.forward(kernel.contract, where, run_forward(kernel, where)).verdict == Verdict::failed_proved);
    }
  }
}

TEST_CASE("an error that no rounding explains is refused as proved, at its place") {
  const Problem problem = draw({});
  for (const char* text : {"order=recurrence chunk=1", "order=residual_first operands=bf16"}) {
    const Contract contract = contract_of(text);
    const ProvedBound bound = proved_bound(contract, problem);
    REQUIRE(bound.token.size() == static_cast<std::size_t>(problem.shape.T));
    Run run = run_forward(faultless_kernel("exact", "order=residual_first"), problem);
    run.o[static_cast<std::size_t>(23 * problem.shape.V + 4)] += static_cast<float>(3 * bound.token[23]);
    Judge judge;
    const Finding finding = judge.forward(contract, problem, run);
    CHECK(finding.verdict == Verdict::failed_proved);
    REQUIRE(finding.place);
    CHECK(finding.place->token == 23);
    CHECK(finding.place->channel == 4);
  }
}

TEST_CASE("shorter blocks, every order and the general form lie inside an undeclared contract's bound") {
  const Problem problem = draw(small(2, 0.05, 0.5, 1));
  const ProvedBound undeclared = proved_bound(contract_of("chunk=64"), problem);
  for (const char* text :
       {"chunk=16 order=residual_first", "chunk=64 order=residual_first", "chunk=32 order=wy", "chunk=1 order=recurrence"}) {
    const ProvedBound declared = proved_bound(contract_of(text), problem);
    INFO(text);
    for (std::size_t t = 0; t < declared.token.size(); ++t) CHECK(declared.token[t] <= undeclared.token[t]);
    for (std::size_t c = 0; c < declared.state_row.size(); ++c) CHECK(declared.state_row[c] <= undeclared.state_row[c]);
  }
}

TEST_CASE("every rule and order has a bound") {
  for (Rule rule : {Rule::kda, Rule::dplr})
    for (const char* order : {"undeclared", "residual_first", "wy", "recurrence"}) {
      Drawn drawn;
      drawn.rule = rule;
      const Contract contract = contract_of(std::string(rule == Rule::dplr ? "rule=dplr" : "rule=kda") + " order=" + order);
      const ProvedBound bound = proved_bound(contract, draw(drawn));
      INFO(to_text(contract));
      CHECK(bound.token.size() == static_cast<std::size_t>(drawn.shape.T));
      for (double x : bound.token) CHECK((std::isfinite(x) && x > 0));
    }
}
