#include "../proved/proved_general_adjoint.hpp"
#include "../cases/recipe.hpp"
#include "../judge.hpp"
#include "../proved/proved_bound.hpp"
#include "../proved/proved_chunk.hpp"
#include "../proved/proved_ratio.hpp"
#include "pushed.hpp"
#include "pushed_general.hpp"

#include "../../kernels/faults/correct_variants.hpp"

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdio>
#include <numeric>

using namespace kdacheck;
using namespace kdacheck::testing;

namespace {

Problem problem_of(std::uint64_t seed, double decay, double cotangents = 1) {
  Drawn drawn;
  drawn.shape = {.B = 1, .T = 40, .H = 1, .HV = 1, .K = 8, .V = 3};
  drawn.rule = Rule::dplr, drawn.seed = seed, drawn.decay = decay;
  Problem problem = draw(drawn);
  for (auto* each : {&problem.d_o, &problem.d_final_state})
    for (float& x : *each) x *= static_cast<float>(cotangents);
  return problem;
}

std::vector<Way> ways(Order order) {
  std::vector<Way> result{
      {.order = order}, {.order = order, .by_inverse = true}, {.order = order, .by_inverse = true, .right_first = true}};
  if (order == Order::wy)
    for (bool right_first : {false, true})
      result.push_back({.order = order, .by_inverse = true, .right_first = right_first, .erases = true});
  return result;
}

constexpr std::array<const char*, 7> names{"dq", "dk", "dv", "dg", "da", "db", "d initial_state"};

std::array<double, 7> worst_ratios(const Contract& contract, const Problem& problem) {
  std::vector<std::int64_t> columns(at(problem.shape.V));
  std::iota(columns.begin(), columns.end(), 0);
  const Head head = read_head(contract, problem, sequences(problem)[0], 0, columns);
  const Matrix d_o(problem.d_o.begin(), problem.d_o.end()), d_state(problem.d_final_state.begin(), problem.d_final_state.end());
  std::array<double, 7> worst{};
  const ProvedUnits units(contract);
  const std::vector<std::int64_t> lengths = chunk_lengths(contract.chunk, problem.shape.T);
  const ChunkStarts starts = chunk_starts<GeneralBound>(units, head, 0, contract.chunk, lengths, {contract.order});
  for (std::int64_t length : lengths) {
    const AdjointBound bound = bound_general_adjoint(units, head, 0, contract.chunk, length, {contract.order}, starts, d_o, d_state);
    const Gradients exact = PushedGeneral(contract_of("chunk=32 rule=dplr"), head, {}, {}).run(problem, length, length);
    for (std::int64_t forward : lengths)
      for (const Way& way : ways(contract.order)) {
        if (forward != length && (way.by_inverse || way.twice)) continue; // unlike lengths by one way
        for_each_push<Push>(23, 1, [&](const Push& push) {
          const Head near = head.normalised ? with_rows_rounded(contract, push.operand, head) : head;
          const Gradients run = PushedGeneral(contract, near, push, way).run(problem, forward, length);
          const auto each = [&](std::size_t which, const Matrix& left, const Matrix& right, const std::vector<double>& bounds) {
            for (std::size_t i = 0; i < left.size(); ++i) {
              const double error = std::abs(left[i] - right[i]), bounded = bounds[i / (left.size() / bounds.size())];
              const double ratio = error == 0 || std::isinf(bounded) ? 0 : error / bounded;
              if (!(ratio <= worst[which])) worst[which] = ratio; // a NaN stays
            }
          };
          each(0, run.q, exact.q, bound.q), each(1, run.k, exact.k, bound.k), each(2, run.v, exact.v, bound.v);
          each(3, run.g, exact.g, bound.g), each(4, run.a, exact.a, bound.a), each(5, run.b, exact.b, bound.b);
          each(6, run.state, exact.state, bound.state);
        });
      }
  }
  return worst;
}

} // namespace

TEST_CASE("the evaluation of the general rule that the bound is tried on is right without a push, and so are the sizes of its bound") {
  const Problem problem = problem_of(3, 0.3);
  const Truth truth = gradient_truth(problem, Arithmetic::double_double, 106);
  const Head head = read_head(contract_of("chunk=32 rule=dplr"), problem, sequences(problem)[0], 0, {0, 1, 2});
  for (const char* text : {"order=residual_first chunk=32 rule=dplr", "order=wy chunk=32 rule=dplr"}) {
    const Contract contract = contract_of(text);
    for (const Way& way : ways(contract.order))
      for (const auto& [forward, back] : {std::pair{16, 16}, std::pair{32, 16}, std::pair{16, 32}}) {
        const Gradients run = PushedGeneral(contract, head, {}, way).run(problem, forward, back);
        INFO(text << ", chunks of " << forward << " and " << back);
        const auto near = [&](Input input, const Matrix& mine) { check_unpushed(truth[input].value, mine, input); };
        near(Input::q, run.q), near(Input::k, run.k), near(Input::v, run.v), near(Input::g, run.g), near(Input::a, run.a);
        near(Input::b, run.b), near(Input::initial_state, run.state);
      }
    const ProvedUnits units(contract);
    const ChunkStarts starts = chunk_starts<GeneralBound>(units, head, 0, 32, {32, 16}, {contract.order});
    const AdjointBound bound =
        bound_general_adjoint(units, head, 0, 32, 16, {contract.order}, starts, {problem.d_o.begin(), problem.d_o.end()},
                              {problem.d_final_state.begin(), problem.d_final_state.end()});
    for (const auto& [input, size] : {std::pair{Input::q, &bound.q_size}, {Input::k, &bound.k_size}, {Input::g, &bound.g_size}})
      for (std::size_t i = 0; i < size->size(); ++i) CHECK(std::abs((*size)[i] - std::abs(truth[input].value[i])) <= 1e-12);
  }
}

TEST_CASE("the worst legal evaluations of the general rule in chunks stay inside the bound of every gradient, and come near it") {
  struct Kind {
    const char* text;
    double near; ///< what the largest error / bound of each gradient must reach: measured, with room
  };
  for (const std::string order : {"order=residual_first ", "order=wy "})
    for (const Kind& kind : {Kind{"chunk=16", 0.003}, Kind{"chunk=32 operands=bf16", 0.03}, Kind{"chunk=16 state=bf16", 0.01},
                             Kind{"chunk=16 gradient_state=bf16", 0.015}, Kind{"chunk=16 exp_ulp=20000", 0.05},
                             Kind{"chunk=32 operands=fp16 scores=fp32", 0.01}, Kind{"chunk=16 solve=fp16", 1e-4}}) {
      const Contract contract = contract_of("rule=dplr " + order + kind.text);
      std::array<double, 7> closest{};
      for (double decay : {0.0, 0.3, 5.0})
        for (double cotangents : {1.0, 1e-7, 3e4}) {
          if (contract.operands != Format::fp16 && cotangents != 1) continue;
          const auto ratios = worst_ratios(contract, problem_of(3, decay, cotangents));
          for (std::size_t which = 0; which < ratios.size(); ++which) {
            INFO(to_text(contract) << ", decay " << decay << ", cotangents of " << cotangents << ", " << names[which] << ": "
                                   << ratios[which]);
            CHECK(ratios[which] <= 1);
            closest[which] = std::max(closest[which], ratios[which]);
          }
        }
      for (std::size_t which = 0; which < closest.size(); ++which) {
        INFO(to_text(contract) << ", " << names[which] << " comes within " << closest[which]);
        CHECK(closest[which] > kind.near);
      }
    }
}

TEST_CASE("gradients of the general rule, of rows that are normalised inside in fp16, stay inside their bounds in chunks") {
  for (const char* order : {"order=residual_first", "order=wy"}) {
    const Contract contract = contract_of(std::string("rule=dplr chunk=32 operands=fp16 scores=fp32 l2norm=both ") + order);
    std::array<double, 7> closest{};
    for (double decay : {1e-3, 0.3})
      for (double values : {1.0, 1e3}) {
        const auto ratios = worst_ratios(contract, in_halves(problem_of(3, decay), values));
        for (std::size_t which = 0; which < ratios.size(); ++which) {
          INFO(order << ", decay " << decay << ", values of " << values << ", " << names[which] << ": " << ratios[which]);
          CHECK(ratios[which] <= 1);
          closest[which] = std::max(closest[which], ratios[which]);
        }
      }
    for (std::size_t which = 0; which < closest.size(); ++which) {
      INFO(order << ", " << names[which] << " comes within " << closest[which]);
      CHECK(closest[which] > 2e-3);
    }
  }
}

namespace {

/// A head of KDA as one of the general rule, its rows rounded in one direction.
Head through_general(const Head& head, const Contract& contract, const Push& push) {
  Head general = head;
  general.dplr = true;
  for (std::size_t i = 0; i < head.k.size(); ++i) {
    const double beta = head.beta[i / static_cast<std::size_t>(head.K)] * (1 + push.single * 0x1p-24);
    const double alpha = std::exp(head.g[i]) * (1 + push.exponential * 2 * contract.exp_ulp * 0x1p-24);
    general.k[i] = beta * head.k[i], general.a.push_back(general.k[i]);
    general.b.push_back(alpha * head.k[i] * (1 + push.single * 0x1p-24));
  }
  return general;
}

/// Gradients of KDA from those of the general rule: k, g and beta.
void to_kda(const Head& head, const Head& general, Gradients& of) {
  of.beta.assign(at(head.tokens), 0.0);
  for (std::size_t i = 0; i < of.k.size(); ++i) {
    const std::size_t t = i / static_cast<std::size_t>(head.K);
    const double written = of.a[i] + of.k[i], alpha = std::exp(head.g[i]);
    of.beta[t] += head.k[i] * written;
    of.k[i] = head.beta[t] * written + alpha * of.b[i], of.g[i] += general.b[i] * of.b[i];
  }
}

} // namespace

TEST_CASE("KDA through the general rule in chunks stays inside its bound, which an undeclared order holds") {
  Drawn drawn;
  drawn.shape = {.B = 1, .T = 40, .H = 1, .HV = 1, .K = 8, .V = 3};
  for (const std::string formats : {"chunk=16 ", "chunk=32 operands=bf16 ", "chunk=16 exp_ulp=20000 "})
    for (const char* order : {"order=residual_first", "order=wy"})
      for (double decay : {1e-3, 0.3, 5.0}) {
        drawn.decay = decay, drawn.beta_most = 1 + decay / 5;
        const Problem problem = draw(drawn);
        const Contract contract = contract_of(formats + order);
        const Head head = read_head(contract, problem, sequences(problem)[0], 0, {0, 1, 2});
        const Matrix d_o(problem.d_o.begin(), problem.d_o.end()), d_state(problem.d_final_state.begin(), problem.d_final_state.end());
        const ProvedUnits units(contract);
        const ChunkStarts starts = chunk_starts<GeneralBound>(units, head, 0, contract.chunk, {contract.chunk}, {contract.order});
        const AdjointBound bound =
            bound_general_adjoint(units, head, 0, contract.chunk, contract.chunk, {contract.order}, starts, d_o, d_state);
        const Truth truth = gradient_truth(problem, Arithmetic::double_double, 106);
        const auto sized = [&](Input input, const std::vector<double>& size) {
          for (std::size_t i = 0; i < size.size(); ++i) CHECK(std::abs(size[i] - std::abs(truth[input].value[i])) <= 1e-11);
        };
        sized(Input::q, bound.q_size), sized(Input::k, bound.k_size), sized(Input::g, bound.g_size), sized(Input::beta, bound.beta_size);
        const ProvedBound open = proved_gradient_bound(contract_of(formats), problem);
        std::array<double, 6> worst{};
        for (const Way& way : ways(contract.order))
          for_each_push<Push>(29, 1, [&](const Push& push) {
            const Head general = through_general(head, contract, push);
            Gradients run = PushedGeneral(contract, general, push, way).run(problem, contract.chunk, contract.chunk);
            to_kda(head, general, run);
            const auto each = [&](std::size_t which, Input input, const Matrix& mine, const std::vector<double>& bounds) {
              const std::vector<double>& outer = open.gradient[static_cast<std::size_t>(input)];
              for (std::size_t i = 0; i < mine.size(); ++i) {
                const double error = std::abs(mine[i] - truth[input].value[i]) - 1e-11;
                worst[which] = std::max(worst[which], error / bounds[i / (mine.size() / bounds.size())]);
                if (worst[which] <= 1) CHECK(error <= outer[i / (mine.size() / outer.size())]);
              }
            };
            each(0, Input::q, run.q, bound.q), each(1, Input::k, run.k, bound.k), each(2, Input::v, run.v, bound.v);
            each(3, Input::g, run.g, bound.g), each(4, Input::beta, run.beta, bound.beta);
            each(5, Input::initial_state, run.state, bound.state);
          });
        for (std::size_t which = 0; which < worst.size(); ++which) {
          INFO(to_text(contract) << ", decay " << decay << ", gradient " << which << ": " << worst[which]);
          CHECK(worst[which] <= 1);
          CHECK(worst[which] > 1e-4);
        }
      }
}

TEST_CASE("right kernels of DPLR stay below the bound of every gradient, and one that misreads an input is refused as proved") {
  Judge judge;
  int kernels = 0, misread = 0, proved = 0;
  for (const auto& list : {built_in_kernels(), correct_variants()})
    for (const Kernel& kernel : list) {
      if (!kernel.backward || kernel.contract.on_device || kernel.contract.order == Order::recurrence) continue;
      if (std::ranges::count(kernel.contract.rules, Rule::dplr) == 0) continue;
      double closest = 0;
      for (double decay : {0.0, 0.05, 3.0})
        for (std::uint64_t seed = 1; seed <= 3; ++seed) {
          Drawn drawn;
          drawn.shape = {.B = 1, .T = 70, .H = 2, .HV = 4, .K = 17, .V = 5};
          drawn.rule = Rule::dplr, drawn.decay = decay, drawn.seed = seed;
          const Problem problem = draw(drawn);
          if (outside_domain(kernel.contract, problem)) continue;
          const double ratio = ProvedCase(kernel.contract, problem, true).ratio(run_backward(kernel, problem));
          INFO(kernel.name << ", decay " << decay << ", seed " << seed << ": " << ratio);
          CHECK(ratio < 1);
          closest = std::max(closest, ratio);
        }
      INFO(kernel.name << " comes within " << closest);
      CHECK(closest > 1e-4);
      ++kernels;
      if (kernel.contract.operands != Format::fp32) continue;
      Drawn drawn;
      drawn.shape = {.B = 1, .T = 40, .H = 1, .HV = 1, .K = 16, .V = 8};
      drawn.rule = Rule::dplr, drawn.formats.qkv = Format::fp32;
      const Problem problem = draw(drawn);
      for (Input input : {Input::q, Input::k, Input::v, Input::g, Input::a, Input::b}) {
        Problem rounded = problem;
        for (float& x : rounded[input]) x = round_to(Format::bf16, x);
        ++misread, proved += judge.backward(kernel.contract, problem, run_backward(kernel, rounded)).verdict == Verdict::failed_proved;
      }
      CHECK(judge.backward(kernel.contract, problem, run_backward(kernel, problem)).verdict == Verdict::passed);
    }
  std::printf("%d right kernels of DPLR in chunks; %d of %d misread inputs are proved\n", kernels, proved, misread);
  CHECK(kernels >= 3);
  CHECK(misread > 0);
  CHECK(proved == misread);
}
