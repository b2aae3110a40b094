#include "../../kernel.hpp"
#include "call.hpp"
#include "problems.hpp"

#include <catch2/catch.hpp>

using namespace kdacheck;
using namespace kdacheck::tests;

namespace {

// fp32 over at most 100 tokens and 33 channels: 2^-24 grows by a few hundred roundings, most of which average out.
constexpr double close = 100 * 0x1p-24;

const Kernel& kernel_named(std::string_view name) {
  for (const Kernel& kernel : built_in_kernels())
    if (kernel.name == name) return kernel;
  throw std::runtime_error("no kernel " + std::string(name));
}

void agrees(const Kernel& kernel, const Problem& problem) {
  REQUIRE(malformed(problem).value_or("well formed") == "well formed");
  const Called called = forward(kernel, problem);
  const Exact truth = exact(problem);
  CHECK(relative_error(called.o, truth.o) < close);
  CHECK(relative_error(called.final_state, truth.final_state) < close);
}

} // namespace

TEST_CASE("the token recurrence agrees with fp64 for every gate, beta and place of the l2norm") {
  for (const char* name : {"cpu.recurrence.fp32", "cpu.dplr.recurrence.fp32"})
    for (GateForm gate : {GateForm::log_decay, GateForm::softplus, GateForm::bounded, GateForm::sigmoid, GateForm::absent})
      for (BetaForm beta : {BetaForm::value, BetaForm::sigmoid, BetaForm::twice_sigmoid})
        for (bool l2norm : {false, true}) {
          const Kernel& kernel = kernel_named(name);
          const Rule rule = kernel.contract.rules.front();
          INFO(name << " " << kdacheck::name(gate) << " " << kdacheck::name(beta) << " l2norm " << l2norm);
          agrees(kernel, draw({.shape = {.B = 2, .T = 37, .H = 1, .HV = 2, .K = 19, .V = 33},
                               .options = {.rule = rule, .gate = gate, .beta = beta, .l2norm = l2norm}}));
        }
}

TEST_CASE("the token recurrence keeps packed sequences apart, empty and one-token ones included") {
  for (const char* name : {"cpu.recurrence.fp32", "cpu.dplr.recurrence.fp32"}) {
    const Kernel& kernel = kernel_named(name);
    agrees(kernel, draw({.shape = {.B = 1, .T = 30, .H = 2, .HV = 4, .K = 5, .V = 70},
                         .options = {.rule = kernel.contract.rules.front()},
                         .cu_seqlens = {0, 0, 1, 18, 18, 30, 30}}));
  }
}

TEST_CASE("no token at all leaves the state as it was") {
  const Kernel& kernel = kernel_named("cpu.recurrence.fp32");
  const Problem problem = draw({.shape = {.B = 2, .T = 0, .H = 1, .HV = 1, .K = 4, .V = 3}});
  CHECK(forward(kernel, problem).final_state == problem.initial_state);
}

TEST_CASE("a call that the contract excludes is refused in a sentence") {
  const Kernel& kernel = kernel_named("cpu.recurrence.fp32");
  Problem problem = draw({.shape = {.B = 1, .T = 3, .H = 1, .HV = 1, .K = 300, .V = 3}});
  CHECK_THROWS_WITH(forward(kernel, problem), "K=300 is not offered");
  problem = draw({.options = {.rule = Rule::dplr}});
  CHECK_THROWS_WITH(forward(kernel, problem), "rule dplr is not offered");
}
