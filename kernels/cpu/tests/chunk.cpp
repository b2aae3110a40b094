#include "../../kernel.hpp"
#include "call.hpp"
#include "problems.hpp"

#include <catch2/catch.hpp>

#include <bit>

using namespace kdacheck;
using namespace kdacheck::tests;

namespace {

std::vector<const Kernel*> chunk_kernels() {
  std::vector<const Kernel*> kernels;
  for (const Kernel& kernel : built_in_kernels())
    if (kernel.contract.order != Order::recurrence) kernels.push_back(&kernel);
  return kernels;
}

/// Largest element error against the root mean square that these tests let pass: 20 units of the coarsest rounding site
/// (200 for fp32, where the roundings of the sums count), and 4 units of fp32 per unit of exponent. This finds wrong
/// algebra; whether a kernel keeps its contract is judged by the properties.
double close(const Contract& contract, const Problem& problem) {
  const double unit = std::max({unit_roundoff(contract.operands), unit_roundoff(contract.state), unit_roundoff(contract.output)});
  const double single = unit_roundoff(Format::fp32);
  return (unit == single ? 200 : 20) * unit + 4 * single * deepest(problem, contract.chunk);
}

void agrees(const Kernel& kernel, const Problem& problem) {
  INFO(kernel.name << " T=" << problem.shape.T << " K=" << problem.shape.K << " V=" << problem.shape.V);
  REQUIRE(malformed(problem).value_or("well formed") == "well formed");
  const Called called = forward(kernel, problem);
  const Exact truth = exact(problem);
  const double allowed = close(kernel.contract, problem);
  CHECK(relative_error(called.o, truth.o) < allowed);
  CHECK(relative_error(called.final_state, truth.final_state) < allowed);
}

Options options_of(const Kernel& kernel) { return {.rule = kernel.contract.rules.front()}; }

/// The first `T` tokens of a problem with B = 1.
Problem head(Problem problem, std::int64_t T) {
  for (Input input : all_inputs) {
    if (input == Input::initial_state || input == Input::A_log || input == Input::dt_bias || problem[input].empty()) continue;
    problem[input].resize(problem[input].size() / static_cast<std::size_t>(problem.shape.T) * static_cast<std::size_t>(T));
  }
  problem.shape.T = T;
  problem.d_o.clear();
  return problem;
}

bool same_bits(float x, float y) { return std::bit_cast<std::uint32_t>(x) == std::bit_cast<std::uint32_t>(y); }

} // namespace

TEST_CASE("every chunk kernel agrees with the fp64 recurrence at every tail") {
  for (const Kernel* kernel : chunk_kernels()) {
    const std::int64_t C = kernel->contract.chunk;
    for (std::int64_t T = 0; T <= 2 * C + 1; T += (T > 20 && T % 16 > 1 && T % 16 < 14 ? 4 : 1))
      agrees(*kernel, draw({.shape = {.B = 1, .T = T, .H = 1, .HV = 1, .K = 5, .V = 7}, .options = options_of(*kernel), .decay = 0.1}));
  }
}

TEST_CASE("every chunk kernel agrees with the fp64 recurrence for grouped heads and odd sizes") {
  for (const Kernel* kernel : chunk_kernels())
    agrees(*kernel, draw({.shape = {.B = 2, .T = 150, .H = 2, .HV = 6, .K = 33, .V = 50}, .options = options_of(*kernel)}));
}

TEST_CASE("every chunk kernel keeps packed sequences apart") {
  for (const Kernel* kernel : chunk_kernels())
    agrees(*kernel, draw({.shape = {.B = 1, .T = 200, .H = 1, .HV = 2, .K = 16, .V = 20},
                          .options = options_of(*kernel),
                          .cu_seqlens = {0, 0, 1, 66, 66, 130, 197, 200, 200}}));
}

TEST_CASE("every chunk kernel agrees with the fp64 recurrence for raw gates, logits and inner l2norm") {
  for (const Kernel* kernel : chunk_kernels())
    for (GateForm gate : {GateForm::softplus, GateForm::bounded, GateForm::sigmoid, GateForm::absent}) {
      Options options = options_of(*kernel);
      options.gate = gate;
      options.l2norm = gate != GateForm::sigmoid;
      options.beta = gate == GateForm::bounded ? BetaForm::twice_sigmoid : BetaForm::sigmoid;
      agrees(*kernel, draw({.shape = {.B = 1, .T = 70, .H = 1, .HV = 2, .K = 24, .V = 9}, .options = options}));
    }
}

TEST_CASE("later tokens do not change a bit of what came before them") {
  for (const Kernel* kernel : chunk_kernels()) {
    const Problem whole = draw({.shape = {.B = 1, .T = 150, .H = 1, .HV = 2, .K = 20, .V = 24}, .options = options_of(*kernel)});
    const Called all = forward(*kernel, whole);
    for (std::int64_t T : {1, 15, 16, 17, 31, 40, 63, 64, 65, 100, 127, 128, 129, 149}) {
      INFO(kernel->name << " T=" << T);
      const Called part = forward(*kernel, head(whole, T));
      bool same = true;
      for (std::size_t i = 0; i < part.o.size(); ++i) same = same && same_bits(part.o[i], all.o[i]);
      CHECK(same);
    }
  }
}

TEST_CASE("a NaN stays in its head and never travels back in time") {
  for (const Kernel* kernel : chunk_kernels()) {
    const Problem clean = draw({.shape = {.B = 1, .T = 100, .H = 2, .HV = 2, .K = 16, .V = 16}, .options = options_of(*kernel)});
    const Called before = forward(*kernel, clean);
    for (Input input : {Input::q, Input::k, Input::v, Input::g, Input::beta}) {
      Problem dirty = clean;
      if (dirty[input].empty()) continue;
      const std::int64_t t = 37;
      const std::size_t per_token = dirty[input].size() / 100;
      dirty[input][static_cast<std::size_t>(t) * per_token] = std::numeric_limits<float>::quiet_NaN(); // head 0
      const Called after = forward(*kernel, dirty);
      INFO(kernel->name << " " << name(input));
      bool untouched = true, reached = false;
      for (std::size_t i = 0; i < after.o.size(); ++i) {
        const bool other_head = i / 16 % 2 == 1, earlier = i / 32 < static_cast<std::size_t>(t);
        if (other_head || earlier) untouched = untouched && same_bits(after.o[i], before.o[i]);
        reached = reached || std::isnan(after.o[i]);
      }
      CHECK(untouched);
      CHECK(reached);
    }
  }
}

TEST_CASE("outputs are finite for any decay, sparse resets, zero keys and beta up to 2") {
  for (const Kernel* kernel : chunk_kernels())
    for (float strong : {-0.0f, -5.0f, -88.0f, -1000.0f, -1e6f})
      for (bool sparse : {false, true}) {
        Problem problem = draw(
            {.shape = {.B = 1, .T = 140, .H = 1, .HV = 1, .K = 16, .V = 16}, .options = options_of(*kernel), .decay = 0.01, .beta_max = 2});
        for (std::size_t i = 0; i < problem.g.size(); ++i)
          if (!sparse || i / 16 % 23 == 5) problem.g[i] = strong;
        std::fill(problem.k.begin() + 16 * 30, problem.k.begin() + 16 * 40, 0.0f);
        INFO(kernel->name << " g=" << strong << (sparse ? " at times" : " always"));
        agrees(*kernel, problem);
      }
}

TEST_CASE("nearly equal keys with slow decay are solved, not expanded in a series") {
  for (const Kernel* kernel : chunk_kernels()) {
    if (kernel->contract.operands != Format::fp32) continue;
    Problem problem = draw(
        {.shape = {.B = 1, .T = 130, .H = 1, .HV = 1, .K = 32, .V = 8}, .options = options_of(*kernel), .decay = 1e-3, .spread = 0.02});
    std::fill(problem.beta.begin(), problem.beta.end(), 0.99f);
    agrees(*kernel, problem);
  }
}
