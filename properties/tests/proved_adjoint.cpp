#include "../proved/proved_adjoint.hpp"
#include "../budget_head.hpp"
#include "../judge.hpp"
#include "../proved/proved_bound.hpp"
#include "../proved/proved_ratio.hpp"
#include "drawn_problem.hpp"
#include "pushed.hpp"
#include "pushed_adjoint.hpp"

#include "../../kernels/cpu/recurrence.hpp"
#include "../../kernels/kernel.hpp"

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <cmath>
#include <numeric>

using namespace kdacheck;
using namespace kdacheck::testing;

namespace {

Problem problem_of(Rule rule, std::uint64_t seed, double decay, double beta) {
  Drawn drawn;
  drawn.shape = {.B = 1, .T = 40, .H = 1, .HV = 1, .K = 8, .V = 3};
  drawn.rule = rule, drawn.seed = seed, drawn.decay = decay, drawn.beta_most = beta, drawn.correlation = beta > 1 ? 0.9 : 0;
  return draw(drawn);
}

/// Largest error / bound of every gradient over legal evaluations.
std::array<double, 8> worst_ratios(const Contract& contract, const Problem& problem) {
  std::vector<std::int64_t> columns(at(problem.shape.V));
  std::iota(columns.begin(), columns.end(), 0);
  const Head head = read_head(contract, problem, sequences(problem)[0], 0, columns);
  const std::vector<double> d_o(problem.d_o.begin(), problem.d_o.end()),
      d_state(problem.d_final_state.begin(), problem.d_final_state.end());
  const AdjointBound bound = bound_adjoint(ProvedUnits(contract), head, 0, contract.chunk, d_o, d_state);
  const Gradients exact = PushedAdjoint(contract, head, {}).run(problem);
  std::array<double, 8> worst{};
  const auto compare = [&](const Push& push) {
    const Gradients run =
        PushedAdjoint(contract, head.normalised ? with_rows_rounded(contract, push.operand, head) : head, push).run(problem);
    const auto each = [&](std::size_t which, const Matrix& left, const Matrix& right, const std::vector<double>& bounds) {
      for (std::size_t i = 0; i < left.size() && !bounds.empty(); ++i) {
        const double bounded = bounds[i / (left.size() / bounds.size())], error = std::abs(left[i] - right[i]);
        const double ratio = error == 0 || std::isinf(bounded) ? 0 : error / bounded;
        if (!(ratio <= worst[which])) worst[which] = ratio; // a NaN stays
      }
    };
    each(0, run.q, exact.q, bound.q), each(1, run.k, exact.k, bound.k), each(2, run.v, exact.v, bound.v), each(3, run.g, exact.g, bound.g);
    if (head.dplr)
      each(5, run.a, exact.a, bound.a), each(6, run.b, exact.b, bound.b);
    else
      each(4, run.beta, exact.beta, bound.beta);
    each(7, run.state, exact.state, bound.state);
  };
  for_each_push<Push>(23, 11, compare);
  return worst;
}

} // namespace

TEST_CASE("the worst legal evaluations of every gradient stay inside its bound, and come near enough to need each term") {
  for (Rule rule : {Rule::kda, Rule::dplr}) {
    struct Kind {
      const char* text;
      double near; ///< what the largest error / bound of each gradient must reach
    };
    for (const Kind& kind :
         {Kind{"order=recurrence", 0.01}, Kind{"order=recurrence operands=bf16", 0.03}, Kind{"order=recurrence state=bf16 chunk=1", 0.02},
          Kind{"order=recurrence exp_ulp=20000", 0.02}, Kind{"order=recurrence accumulate=bf16", 0.01},
          Kind{"order=recurrence operands=fp16", 0.02}, Kind{"order=recurrence operands=fp16 state=fp16 chunk=1", 0.01}}) {
      const Contract contract = contract_of(std::string(kind.text) + (rule == Rule::dplr ? " rule=dplr" : ""));
      std::array<double, 8> closest{};
      for (double decay : {0.0, 1e-3, 0.3, 5.0})
        for (double beta : {0.5, 2.0}) {
          for (double cotangents : {1.0, 1e-7, 3e4}) {
            if (cotangents != 1 && contract.operands != Format::fp16) continue;
            Problem problem = problem_of(rule, 3, decay, beta);
            for (auto* each : {&problem.d_o, &problem.d_final_state})
              for (float& x : *each) x *= static_cast<float>(cotangents);
            for (auto* each : {&problem.v, &problem.initial_state}) // what a tiny cotangent loses counts where it is multiplied by much
              for (float& x : *each) x *= cotangents < 1 ? 100 : 1;
            const auto ratios = worst_ratios(contract, problem);
            for (std::size_t which = 0; which < ratios.size(); ++which) {
              INFO(to_text(contract) << ", decay " << decay << ", beta to " << beta << ", gradient " << which << ": " << ratios[which]);
              CHECK(ratios[which] <= 1);
              closest[which] = std::max(closest[which], ratios[which]);
            }
          }
        }
      for (std::size_t which = 0; which < closest.size(); ++which) {
        if (rule == Rule::dplr ? which == 4 : which == 5 || which == 6) continue; // there is none
        INFO(to_text(contract) << ", gradient " << which << " comes within " << closest[which]);
        CHECK(closest[which] > kind.near);
      }
    }
  }
}

TEST_CASE("dg as a running sum stays inside its bound where operands or states are in fp16, and comes near it") {
  for (Rule rule : {Rule::kda, Rule::dplr})
    for (const char* formats : {"operands=fp16", "operands=fp16 l2norm=both", "state=fp16 chunk=1"}) {
      const std::string text = std::string("order=recurrence ") + formats + (rule == Rule::dplr ? " rule=dplr" : "");
      const Contract products = contract_of(text), sums = contract_of(text + " decay_gradient=sums");
      double closest = 0;
      for (double decay : {1e-3, 0.3, 5.0})
        for (double cotangents : {1.0, 1e-7}) {
          Problem problem = problem_of(rule, 3, decay, 1);
          if (sums.l2norm_inside) problem = in_halves(problem, 1e3);
          for (auto* each : {&problem.d_o, &problem.d_final_state})
            for (float& x : *each) x *= static_cast<float>(cotangents);
          const Head head = read_head(sums, problem, sequences(problem)[0], 0, {0, 1, 2});
          const Gradients plain = PushedAdjoint(products, head, {}).run(problem), summed = PushedAdjoint(sums, head, {}).run(problem);
          for (std::size_t i = 0; i < plain.g.size(); ++i)
            REQUIRE(std::abs(plain.g[i] - summed.g[i]) <= 1e-10 * cotangents * (sums.l2norm_inside ? 1e6 : 1));
          const double ratio = worst_ratios(sums, problem)[3];
          INFO(to_text(sums) << ", decay " << decay << ", cotangents of " << cotangents << ": " << ratio);
          CHECK(ratio <= 1);
          closest = std::max(closest, ratio);
        }
      INFO(to_text(sums) << " comes within " << closest);
      CHECK(closest > 2e-3);
    }
}

TEST_CASE("gradients of rows that are normalised inside in fp16 stay inside their bounds token by token") {
  for (Rule rule : {Rule::kda, Rule::dplr}) {
    const Contract contract =
        contract_of(std::string("order=recurrence operands=fp16 l2norm=both") + (rule == Rule::dplr ? " rule=dplr" : ""));
    double closest = 0;
    for (double rows : {1e-8, 1e-6, 1.0}) // against eps, which bounds what a tiny row is multiplied by
      for (double values : {1.0, 1e3}) {
        Problem problem = in_halves(problem_of(rule, 3, 0.1, 1), values);
        for (auto* each : {&problem.q, &problem.k})
          for (float& x : *each) x *= static_cast<float>(rows);
        for (double ratio : worst_ratios(contract, problem)) {
          INFO(name(rule) << ", rows of " << rows << ", values of " << values << ": " << ratio);
          CHECK(ratio <= 1);
          closest = std::max(closest, ratio);
        }
      }
    INFO(name(rule) << " comes within " << closest);
    CHECK(closest > 0.02);
  }
}

TEST_CASE("KDA through the general rule token by token stays inside its bound, which an undeclared order holds") {
  for (const std::string formats : {"", "operands=bf16", "exp_ulp=20000", "accumulate=bf16"}) {
    std::array<double, 6> closest{};
    for (double decay : {1e-3, 0.3, 5.0})
      for (std::uint64_t seed : {3, 4}) {
        const Problem problem = problem_of(Rule::kda, seed, decay, 1.5);
        const Contract contract = contract_of("order=recurrence " + formats);
        const Head head = read_head(contract, problem, sequences(problem)[0], 0, {0, 1, 2});
        const AdjointBound bound =
            bound_adjoint_through_general(ProvedUnits(contract), head, 0, contract.chunk, {problem.d_o.begin(), problem.d_o.end()},
                                          {problem.d_final_state.begin(), problem.d_final_state.end()});
        const ProvedBound open = proved_gradient_bound(contract_of(formats), problem);
        const Truth truth = gradient_truth(problem, Arithmetic::double_double, 106);
        for (const auto& [input, size] :
             {std::pair{Input::q, &bound.q_size}, {Input::k, &bound.k_size}, {Input::g, &bound.g_size}, {Input::beta, &bound.beta_size}})
          for (std::size_t i = 0; i < size->size(); ++i) CHECK(std::abs((*size)[i] - std::abs(truth[input].value[i])) <= 1e-11);
        for_each_push<Push>(31, 3, [&](const Push& push) {
          Head general = head; // products that the kernel rounds
          general.dplr = true, general.b.clear(), general.a.clear();
          for (std::size_t i = 0; i < head.k.size(); ++i) {
            const double rounded = 1 + push.state * 0x1p-24, exponential = 1 + push.exponential * 2 * contract.exp_ulp * 0x1p-24;
            general.k[i] = head.beta[i / 8] * head.k[i] * rounded;
            general.a.push_back(general.k[i]), general.b.push_back(std::exp(head.g[i]) * exponential * head.k[i] * rounded);
          }
          Gradients run = PushedAdjoint(contract, general, push).run(problem);
          std::ranges::fill(run.beta, 0.0);
          for (std::size_t i = 0; i < head.k.size(); ++i) {
            const double written = run.a[i] + run.k[i];
            run.beta[i / 8] += head.k[i] * written;
            run.k[i] = head.beta[i / 8] * written + std::exp(head.g[i]) * run.b[i], run.g[i] += general.b[i] * run.b[i];
          }
          const auto each = [&](std::size_t which, Input input, const Matrix& mine, const std::vector<double>& bounds) {
            const std::vector<double>& outer = open.gradient[static_cast<std::size_t>(input)];
            for (std::size_t i = 0; i < mine.size(); ++i) {
              const double error = std::abs(mine[i] - truth[input].value[i]) - 1e-11,
                           ratio = error / bounds[i / (mine.size() / bounds.size())];
              INFO(formats << ", decay " << decay << ", " << name(input) << " " << i << ": " << ratio);
              if (!(ratio <= 1)) CHECK(ratio <= 1);
              if (error > outer[i / (mine.size() / outer.size())]) CHECK(error <= outer[i / (mine.size() / outer.size())]);
              closest[which] = std::max(closest[which], ratio);
            }
          };
          each(0, Input::q, run.q, bound.q), each(1, Input::k, run.k, bound.k), each(2, Input::v, run.v, bound.v);
          each(3, Input::g, run.g, bound.g), each(4, Input::beta, run.beta, bound.beta),
              each(5, Input::initial_state, run.state, bound.state);
        });
      }
    for (std::size_t which = 0; which < closest.size(); ++which) {
      INFO(formats << ", gradient " << which << " comes within " << closest[which]);
      CHECK(closest[which] <= 1);
      CHECK(closest[which] > 0.005);
    }
  }
}

TEST_CASE("gradients of rows that the kernel normalises stay inside their bound, and come near it") {
  for (const std::string formats : {"", " operands=bf16", " accumulate=bf16", " operands=fp16"}) {
    const Contract contract = contract_of("order=recurrence l2norm=both" + formats);
    const bool half = contract.operands == Format::fp16;
    const auto rounded = [&](double push, double x, double most) { // of fp16 no more than `most`, as it is for q and k
      const double u = unit_roundoff(contract.operands);
      return x + push * std::min(most, std::max(u * std::abs(x), half && std::abs(x) < 0x1p-14 ? 0x1p-25 : 0.0));
    };
    std::array<double, 2> closest{};
    for (double decay : {1e-3, 0.3})
      for (double size : {1e-3, 1.0, 50.0}) { // at 1e-3, eps counts as much as the row
        Problem problem = problem_of(Rule::kda, 3, decay, 1);
        if (half) problem = in_halves(problem, 1e3);
        problem.options.l2norm = true;
        for (Input input : {Input::q, Input::k})
          for (float& x : problem[input]) x *= static_cast<float>(size);
        const std::int64_t K = problem.shape.K;
        const Head head = read_head(contract, problem, sequences(problem)[0], 0, {0, 1, 2});
        const ProvedBound bound = proved_gradient_bound(contract, problem);
        const Truth truth = gradient_truth(problem, Arithmetic::double_double, 106);
        for_each_push<Push>(37, 5, [&](const Push& push) {
          const double by_norm = 0.5 * static_cast<double>(K) * unit_roundoff(contract.accumulate) + 0x1p-23;
          Head near = head;
          for (auto* rows : {&near.q, &near.k})
            for (double& x : *rows) x = rounded(push.operand, x * (1 + push.accumulate * by_norm), std::abs(x));
          const Gradients run = PushedAdjoint(contract, near, push).run(problem);
          const auto each = [&](std::size_t which, Input input, const Matrix& dx, const Matrix& x, const Matrix& factor) {
            const std::vector<double>& bounds = bound.gradient[static_cast<std::size_t>(input)];
            for (std::int64_t t = 0; t < head.tokens; ++t) {
              double along = 0, terms = 0;
              for (std::int64_t c = 0; c < K; ++c) {
                const double term = x[at(t * K + c)] * rounded(push.operand, dx[at(t * K + c)], HUGE_VAL);
                along += term, terms += std::abs(term);
              }
              along += push.accumulate * static_cast<double>(K) * unit_roundoff(contract.accumulate) * terms;
              for (std::int64_t c = 0; c < K; ++c) {
                const double r = factor[at(t)] * (1 + push.accumulate * by_norm);
                const double mine = r * (rounded(push.operand, dx[at(t * K + c)], HUGE_VAL) - x[at(t * K + c)] * along);
                const double ratio = std::abs(mine - truth[input].value[at(t * K + c)]) / bounds[at(t)];
                if (!(ratio <= closest[which])) closest[which] = ratio;
              }
            }
          };
          each(0, Input::q, run.q, near.q, head.q_norm), each(1, Input::k, run.k, near.k, head.k_norm);
        });
      }
    for (std::size_t which = 0; which < closest.size(); ++which) {
      INFO(to_text(contract) << ", d" << (which == 0 ? "q" : "k") << " comes within " << closest[which]);
      CHECK(closest[which] <= 1);
      CHECK(closest[which] > 0.005);
    }
  }
}

TEST_CASE("right backward passes stay below the bound of every gradient, summed over groups and through gates and betas") {
  for (const char* name : {"cpu.recurrence.fp32", "cpu.dplr.recurrence.fp32"}) {
    const auto kernel = std::ranges::find(built_in_kernels(), std::string(name), &Kernel::name);
    REQUIRE(kernel != built_in_kernels().end());
    double closest = 0;
    int cases = 0;
    for (double decay : {0.0, 0.05, 3.0, 100.0})
      for (GateForm gate : {GateForm::log_decay, GateForm::softplus, GateForm::sigmoid}) {
        Drawn drawn;
        drawn.shape = {.B = 2, .T = 50, .H = 2, .HV = 4, .K = 17, .V = 5};
        drawn.rule = kernel->contract.rules[0], drawn.decay = decay, drawn.seed = 4;
        Problem problem = draw(drawn);
        problem.options.gate = gate;
        if (gate == GateForm::softplus) {
          problem.A_log = {-1, 0, 1, -2};
          problem.dt_bias.assign(4 * 17, -0.5f);
        }
        if (gate != GateForm::log_decay && drawn.rule == Rule::kda) problem.options.beta = BetaForm::sigmoid;
        if (outside_domain(kernel->contract, problem)) continue;
        const double ratio = ProvedCase(kernel->contract, problem, true).ratio(run_backward(*kernel, problem));
        INFO(name << ", decay " << decay << ", gate " << kdacheck::name(gate) << ": " << ratio);
        CHECK(ratio < 0.5);
        closest = std::max(closest, ratio);
        ++cases;
      }
    CHECK(cases >= 8);
    CHECK(closest > 1e-3);
  }
}

TEST_CASE("a backward pass that reads an input or a cotangent in bf16 is refused as proved") {
  const auto kernel = std::ranges::find(built_in_kernels(), std::string("cpu.recurrence.fp32"), &Kernel::name);
  REQUIRE(kernel != built_in_kernels().end());
  Drawn drawn;
  drawn.shape = {.B = 1, .T = 40, .H = 1, .HV = 1, .K = 16, .V = 8};
  drawn.formats.qkv = Format::fp32;
  const Problem problem = draw(drawn);
  Judge judge;
  CHECK(judge.backward(kernel->contract, problem, run_backward(*kernel, problem)).verdict == Verdict::passed);
  for (Input input : {Input::q, Input::k, Input::v, Input::g, Input::beta}) {
    Problem misread = problem;
    for (float& x : misread[input]) x = round_to(Format::bf16, x);
    INFO(name(input));
    CHECK(judge.backward(kernel->contract, problem, run_backward(*kernel, misread)).verdict == Verdict::failed_proved);
  }
  // an error three times the bound, in one place of one gradient
  const ProvedBound bound = proved_gradient_bound(kernel->contract, problem);
  for (Input input : {Input::q, Input::k, Input::v, Input::g, Input::beta, Input::initial_state}) {
    Run run = run_backward(*kernel, problem);
    auto& gradient = run.gradient[static_cast<std::size_t>(input)];
    const auto& groups = bound.gradient[static_cast<std::size_t>(input)];
    const std::size_t place = gradient.size() / 2, group = place / (gradient.size() / groups.size());
    gradient[place] += static_cast<float>(3 * groups[group]);
    INFO("d" << name(input));
    CHECK(judge.backward(kernel->contract, problem, run).verdict == Verdict::failed_proved);
  }
}

TEST_CASE("dg as a running sum has a bound of its own, which right passes keep and sums without a promise exceed") {
  for (Rule rule : {Rule::kda, Rule::dplr}) {
    const auto kernel = std::ranges::find(
        built_in_kernels(), std::string(rule == Rule::kda ? "cpu.recurrence.fp32" : "cpu.dplr.recurrence.fp32"), &Kernel::name);
    REQUIRE(kernel != built_in_kernels().end());
    Contract sums = kernel->contract;
    sums.decay_gradient = DecayGradient::sums;
    const Kernel summing = cpu::recurrence("sums", "dg as a running sum", sums);
    double closest = 0, broken = 0;
    for (double decay : {0.0, 0.05, 3.0, 20.0})
      for (std::uint64_t seed = 1; seed <= 4; ++seed) {
        Drawn drawn;
        drawn.shape = {.B = 1, .T = 70, .H = 2, .HV = 4, .K = 17, .V = 5};
        drawn.rule = rule, drawn.decay = decay, drawn.seed = seed;
        const Problem problem = draw(drawn);
        const Run run = run_backward(summing, problem);
        const double kept = ProvedCase(sums, problem, true).ratio(run);
        INFO(name(rule) << ", decay " << decay << ": " << kept);
        CHECK(kept < 0.5);
        closest = std::max(closest, kept);
        broken = std::max(broken, ProvedCase(kernel->contract, problem, true).ratio(run));
      }
    CHECK(closest > 1e-3);
    CHECK(broken > 1); // under strong decay next to nothing is left of the sum
  }
}

TEST_CASE("what was not derived has no bound: sums in fp16, and what overflows") {
  const Problem plain = problem_of(Rule::kda, 1, 0.05, 1);
  const auto of_q = [](const ProvedBound& bound) { return bound.gradient[static_cast<std::size_t>(Input::q)]; };
  for (const char* text : {"order=wy accumulate=fp16", "order=recurrence accumulate=fp16"})
    CHECK(of_q(proved_gradient_bound(contract_of(text), plain)).empty());
  Problem large = plain;
  for (float& x : large.d_o) x *= 1e6f;
  for (const char* text : {"order=recurrence operands=fp16", "operands=fp16", "order=recurrence state=fp16"}) {
    CHECK(std::isfinite(of_q(proved_gradient_bound(contract_of(text), plain))[0]));
    CHECK(std::isinf(of_q(proved_gradient_bound(contract_of(text), large))[0]));
  }
  Problem normed = plain; // a gradient that overflows before it goes through its norm
  normed.options.l2norm = true;
  CHECK(std::isfinite(of_q(proved_gradient_bound(contract_of("order=recurrence operands=fp16 l2norm=both"), normed))[0]));
  for (float& x : normed.initial_state) x = 1e4f;
  for (float& x : normed.d_o) x = 10;
  CHECK(std::isinf(of_q(proved_gradient_bound(contract_of("order=recurrence operands=fp16 l2norm=both"), normed))[0]));
  CHECK(std::isfinite(of_q(proved_gradient_bound(contract_of("order=recurrence l2norm=both"), normed))[0]));
}
