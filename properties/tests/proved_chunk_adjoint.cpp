#include "../proved/proved_chunk_adjoint.hpp"
#include "../cases/recipe.hpp"
#include "../proved/proved_bound.hpp"
#include "../proved/proved_chunk.hpp"
#include "../proved/proved_ratio.hpp"
#include "../transform.hpp"
#include "drawn_problem.hpp"
#include "pushed.hpp"
#include "pushed_chunks.hpp"

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

Problem problem_of(std::uint64_t seed, double decay, double beta) {
  Drawn drawn;
  drawn.shape = {.B = 1, .T = 40, .H = 1, .HV = 1, .K = 8, .V = 3};
  drawn.seed = seed, drawn.decay = decay, drawn.beta_most = beta, drawn.correlation = beta > 1 ? 0.9 : 0;
  return draw(drawn);
}

constexpr std::array<const char*, 6> names{"dq", "dk", "dv", "dg", "dbeta", "d initial_state"};

/// The ways that an order leaves open.
std::vector<Way> ways(Order order) {
  std::vector<Way> result{{.order = order},
                          {.order = order, .by_inverse = true},
                          {.order = order, .by_inverse = true, .right_first = true},
                          {.order = order, .twice = true},
                          {.order = order, .substitutes = true}};
  if (order == Order::wy)
    for (bool right_first : {false, true})
      result.push_back({.order = order, .by_inverse = true, .right_first = right_first, .erases = true});
  return result;
}

/// Largest error / bound of every gradient over legal evaluations, forward and back in chunks of every legal length.
std::array<double, 6> worst_ratios(const Contract& contract, const Problem& problem, int mixtures) {
  std::vector<std::int64_t> columns(at(problem.shape.V));
  std::iota(columns.begin(), columns.end(), 0);
  const Head head = read_head(contract, problem, sequences(problem)[0], 0, columns);
  const Matrix d_o(problem.d_o.begin(), problem.d_o.end()), d_state(problem.d_final_state.begin(), problem.d_final_state.end());
  std::array<double, 6> worst{};
  const ProvedUnits units(contract);
  const std::vector<std::int64_t> lengths = chunk_lengths(contract.chunk, problem.shape.T);
  const ChunkStarts starts = chunk_starts<ChunkBound>(units, head, 0, contract.chunk, lengths, {contract.order});
  for (std::int64_t length : lengths) {
    const AdjointBound bound = bound_chunk_adjoint(units, head, 0, contract.chunk, length, {contract.order}, starts, d_o, d_state);
    const Gradients exact = PushedChunks(contract, head, {}, {}).run(problem, length, length);
    for (std::int64_t forward : lengths)
      for (const Way& way : ways(contract.order)) {
        if (forward != length && (way.by_inverse || way.twice || way.substitutes)) continue; // unlike lengths by one way
        for_each_push<Push>(23, mixtures, [&](const Push& push) {
          const Head near = head.normalised ? with_rows_rounded(contract, push.operand, head) : head;
          const Gradients run = PushedChunks(contract, near, push, way).run(problem, forward, length);
          const auto each = [&](std::size_t which, const Matrix& left, const Matrix& right, const std::vector<double>& bounds) {
            for (std::size_t i = 0; i < left.size(); ++i) {
              const double error = std::abs(left[i] - right[i]);
              const double bounded = bounds[i / (left.size() / bounds.size())];
              const double ratio = error == 0 || std::isinf(bounded) ? 0 : error / bounded;
              if (!(ratio <= worst[which])) worst[which] = ratio; // a NaN stays
            }
          };
          each(0, run.q, exact.q, bound.q), each(1, run.k, exact.k, bound.k), each(2, run.v, exact.v, bound.v);
          each(3, run.g, exact.g, bound.g), each(4, run.beta, exact.beta, bound.beta), each(5, run.state, exact.state, bound.state);
        });
      }
  }
  return worst;
}

} // namespace

TEST_CASE("the evaluation that the bound is tried on is right without a push, by every way and in chunks of unlike lengths") {
  const Problem problem = problem_of(3, 0.3, 1);
  const Truth truth = gradient_truth(problem, Arithmetic::double_double, 106);
  const Head head = read_head(contract_of("chunk=32"), problem, sequences(problem)[0], 0, {0, 1, 2});
  for (const char* text : {"order=residual_first chunk=32", "order=wy chunk=32"}) {
    const Contract contract = contract_of(text);
    for (const Way& way : ways(contract.order))
      for (const auto& [forward, back] : {std::pair{16, 16}, std::pair{32, 16}, std::pair{16, 32}}) {
        const Gradients run = PushedChunks(contract, head, {}, way).run(problem, forward, back);
        INFO(text << ", chunks of " << forward << " and " << back);
        const auto near = [&](Input input, const Matrix& mine) { check_unpushed(truth[input].value, mine, input); };
        near(Input::q, run.q), near(Input::k, run.k), near(Input::v, run.v), near(Input::g, run.g), near(Input::beta, run.beta);
        near(Input::initial_state, run.state);
      }
  }
}

TEST_CASE("the worst legal evaluations in chunks stay inside the bound of every gradient, and come as near as they do") {
  struct Kind {
    const char* text;
    double near; ///< what the largest error / bound of each gradient must reach: measured, with room; below it the bound has grown
  };
  for (const std::string order : {"order=residual_first ", "order=wy "})
    for (const Kind& kind :
         {Kind{"chunk=16", 0.02}, Kind{"chunk=32 operands=bf16", 0.2}, Kind{"chunk=16 scores=bf16", 0.1}, Kind{"chunk=16 state=bf16", 0.1},
          Kind{"chunk=16 gradient_state=bf16", 0.1}, Kind{"chunk=16 exp_ulp=20000", 0.1}, Kind{"chunk=16 accumulate=bf16", 1e-3},
          Kind{"chunk=16 solve=bf16", 2e-4}}) {
      const Contract contract = contract_of(order + kind.text);
      std::array<double, 6> closest{};
      for (double decay : {0.0, 1e-3, 0.3, 5.0})
        for (double beta : {0.5, 2.0}) {
          const auto ratios = worst_ratios(contract, problem_of(3, decay, beta), 3);
          for (std::size_t which = 0; which < ratios.size(); ++which) {
            INFO(to_text(contract) << ", decay " << decay << ", beta to " << beta << ", " << names[which] << ": " << ratios[which]);
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

TEST_CASE("fp16's subnormals lie inside the bound of every gradient, and what overflows has none") {
  const auto scaled = [](Problem problem, float cotangents) {
    for (auto* each : {&problem.d_o, &problem.d_final_state})
      for (float& x : *each) x *= cotangents;
    for (float& x : problem.v) x *= 30; // what a tiny cotangent loses counts where it is multiplied by much
    return problem;
  };
  for (const char* formats : {"operands=fp16 scores=fp32", "operands=fp16 state=fp16", "gradient_state=fp16"})
    for (const char* order : {" order=residual_first", " order=wy"}) {
      const Contract contract = contract_of("chunk=32 " + std::string(formats) + order);
      std::array<double, 6> closest{};
      for (double decay : {1e-3, 1.0})
        for (float cotangents : {1e-7f, 1e-3f, 1.0f, 3e4f}) {
          const auto ratios = worst_ratios(contract, scaled(problem_of(3, decay, 1), cotangents), 0);
          for (std::size_t which = 0; which < ratios.size(); ++which) {
            INFO(to_text(contract) << ", decay " << decay << ", cotangents of " << cotangents << ", " << names[which] << ": "
                                   << ratios[which]);
            CHECK(ratios[which] <= 1);
            closest[which] = std::max(closest[which], ratios[which]);
          }
        }
      for (std::size_t which = 0; which < closest.size(); ++which) {
        INFO(to_text(contract) << ", " << names[which] << " comes within " << closest[which]);
        CHECK(closest[which] > 0.01);
      }
    }
  const auto known = [](const char* text, const Problem& problem) {
    return std::isfinite(proved_gradient_bound(contract_of(text), problem).gradient[static_cast<std::size_t>(Input::k)][0]);
  };
  const Problem plain = problem_of(3, 0.3, 1);
  for (const char* text : {"order=residual_first operands=fp16", "order=wy operands=fp16", "order=residual_first gradient_state=fp16"}) {
    CHECK(known(text, scaled(plain, 1)));
    CHECK_FALSE(known(text, scaled(plain, 1e6f)));
  }
}

TEST_CASE("gradients of a solve in fp16 stay inside their bounds, and come near them, where T or cotangents are tiny") {
  for (const char* order : {"order=residual_first", "order=wy"}) {
    const Contract contract = contract_of(std::string("chunk=32 solve=fp16 ") + order);
    std::array<double, 6> closest{};
    for (double decay : {0.3, 3.0, 9.0})
      for (float cotangents : {1e-7f, 1.0f}) {
        Problem problem = problem_of(3, decay, 1);
        for (auto* each : {&problem.d_o, &problem.d_final_state})
          for (float& x : *each) x *= cotangents;
        for (std::size_t i = 0; i < problem.v.size(); ++i)
          if (i / 3 % 2 == 0) problem.v[i] *= 1e4f, problem.d_o[i] *= cotangents < 1 ? 1 : 1e4f;
        const auto ratios = worst_ratios(contract, problem, 1);
        for (std::size_t which = 0; which < ratios.size(); ++which) {
          INFO(order << ", decay " << decay << ", cotangents of " << cotangents << ", " << names[which] << ": " << ratios[which]);
          CHECK(ratios[which] <= 1);
          closest[which] = std::max(closest[which], ratios[which]);
        }
      }
    for (std::size_t which = 0; which < closest.size(); ++which) {
      INFO(order << ", " << names[which] << " comes within " << closest[which]);
      CHECK(closest[which] > 5e-3);
    }
  }
}

TEST_CASE("gradients of rows that are normalised inside in fp16 stay inside their bounds in chunks") {
  for (const char* order : {"order=residual_first", "order=wy"}) {
    const Contract contract = contract_of(std::string("chunk=32 operands=fp16 scores=fp32 l2norm=both ") + order);
    std::array<double, 6> closest{};
    for (double decay : {1e-3, 0.3})
      for (double values : {1.0, 1e4}) {
        const auto ratios = worst_ratios(contract, in_halves(problem_of(3, decay, 1), values), 1);
        for (std::size_t which = 0; which < ratios.size(); ++which) {
          INFO(order << ", decay " << decay << ", values of " << values << ", " << names[which] << ": " << ratios[which]);
          CHECK(ratios[which] <= 1);
          closest[which] = std::max(closest[which], ratios[which]);
        }
      }
    for (std::size_t which = 0; which < closest.size(); ++which) {
      INFO(order << ", " << names[which] << " comes within " << closest[which]);
      CHECK(closest[which] > 0.02);
    }
  }
}

TEST_CASE("the bound of every order lies inside that of an undeclared one, and an undeclared one is none of them alone") {
  std::array<bool, 3> needed{};
  for (const char* formats : {"chunk=32", "chunk=32 operands=bf16"})
    for (double decay : {1e-3, 0.3}) {
      const Problem problem = problem_of(5, decay, 2);
      const ProvedBound open = proved_gradient_bound(contract_of(formats), problem);
      std::array<ProvedBound, 3> declared;
      for (std::size_t which = 0; which < declared.size(); ++which)
        declared[which] = proved_gradient_bound(
            contract_of(std::string(formats) + std::array{" order=residual_first", " order=wy", " order=recurrence"}[which]), problem);
      for (Input input : {Input::q, Input::k, Input::v, Input::g, Input::beta, Input::initial_state}) {
        const auto index = static_cast<std::size_t>(input);
        REQUIRE(!open.gradient[index].empty());
        for (std::size_t i = 0; i < open.gradient[index].size(); ++i) {
          REQUIRE(std::isfinite(open.gradient[index][i]));
          for (std::size_t which = 0; which < declared.size(); ++which) {
            INFO(formats << ", d" << name(input) << " " << i << ", order " << which);
            CHECK(declared[which].gradient[index][i] <= open.gradient[index][i] * (1 + 1e-12)); // sums in another order
            double others = 0;
            for (std::size_t other = 0; other < declared.size(); ++other)
              if (other != which) others = std::max(others, declared[other].gradient[index][i]);
            needed[which] = needed[which] || declared[which].gradient[index][i] > others;
          }
        }
      }
    }
  CHECK(needed[1]); // wy's holds that of residual_first
  CHECK(needed[2]);
}

namespace {

std::vector<Kernel> right_chunks() {
  std::vector<Kernel> result;
  for (const auto& kernels : {built_in_kernels(), correct_variants()})
    for (const Kernel& kernel : kernels)
      if (kernel.backward && kernel.contract.order != Order::recurrence && kernel.contract.rules == std::vector{Rule::kda} &&
          !kernel.contract.on_device)
        result.push_back(kernel);
  return result;
}

bool derived(const ProvedBound& bound) { return !bound.gradient[static_cast<std::size_t>(Input::k)].empty(); }

} // namespace

// `proved --correct --backward` tries every regime of the quick set.
TEST_CASE("right chunk kernels stay below the bound of every gradient, in every format and order of sums") {
  int kernels = 0, outside = 0, underived = 0;
  for (const Kernel& kernel : right_chunks()) {
    double closest = 0;
    int cases = 0;
    for (const char* regime : {"gaussian-keys", "near-identical-keys", "alternating-keys", "strong-decay", "softplus-gate", "grouped-heads",
                               "loss-on-final-state", "reflections"}) {
      if (regime_named(regime) == nullptr) FAIL("no regime is named " << regime);
      const Problem problem =
          make_problem(fitted(regime_named(regime)->draw(1, Tier::quick), kernel.contract), input_formats(kernel.contract));
      if (outside_domain(kernel.contract, problem)) {
        ++outside;
        continue;
      }
      const ProvedCase proved(kernel.contract, problem, true);
      if (!derived(proved.bound())) {
        ++underived;
        continue;
      }
      const double ratio = proved.ratio(run_backward(kernel, problem));
      INFO(kernel.name << " on " << regime << ": " << ratio);
      CHECK(ratio < 1);
      closest = std::max(closest, ratio), ++cases;
    }
    if (cases == 0) continue;
    ++kernels;
    INFO(kernel.name << " comes within " << closest);
    CHECK(closest > 1e-6);
  }
  std::printf("%d right kernels; %d cases outside a domain, %d without a bound\n", kernels, outside, underived);
  CHECK(kernels >= 15);
}
