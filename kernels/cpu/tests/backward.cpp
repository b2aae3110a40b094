#include "../../kernel.hpp"
#include "call.hpp"
#include "problems.hpp"

#include <catch2/catch.hpp>

using namespace kdacheck;
using namespace kdacheck::tests;

namespace {

std::vector<const Kernel*> kernels_with_backward() {
  std::vector<const Kernel*> kernels;
  for (const Kernel& kernel : built_in_kernels())
    if (kernel.backward) kernels.push_back(&kernel);
  return kernels;
}

/// Largest element error against the root mean square: twice what the outputs get, and twice that for the gate's, which
/// is a difference of larger terms.
double close(const Contract& contract, const Problem& problem, Input input) {
  const double unit = std::max({unit_roundoff(contract.operands), unit_roundoff(contract.state), unit_roundoff(contract.gradient)});
  const double single = unit_roundoff(Format::fp32);
  const bool gate = input == Input::g || input == Input::A_log || input == Input::dt_bias;
  return (gate ? 2 : 1) * ((unit == single ? 400 : 40) * unit + 8 * single * deepest(problem, contract.chunk));
}

void agrees(const Kernel& kernel, const Problem& problem) {
  INFO(kernel.name << " T=" << problem.shape.T << " K=" << problem.shape.K << " V=" << problem.shape.V);
  REQUIRE(malformed(problem).value_or("well formed") == "well formed");
  const Called called = backward(kernel, problem);
  const Exact truth = exact(problem);
  for (Input input : all_inputs) {
    if (problem[input].empty()) continue;
    INFO("d " << name(input));
    CHECK(relative_error(called[input], truth[input]) < close(kernel.contract, problem, input));
  }
}

Options options_of(const Kernel& kernel) { return {.rule = kernel.contract.rules.front()}; }

} // namespace

TEST_CASE("gradients agree with the fp64 adjoint at every tail") {
  for (const Kernel* kernel : kernels_with_backward()) {
    const std::int64_t C = std::max<std::int64_t>(kernel->contract.chunk, 16);
    for (std::int64_t T = 0; T <= 2 * C + 1; T += (T > 18 && T % 16 > 1 && T % 16 < 14 ? 4 : 1))
      agrees(*kernel, draw({.shape = {.B = 1, .T = T, .H = 1, .HV = 1, .K = 5, .V = 7}, .options = options_of(*kernel), .decay = 0.1}));
  }
}

TEST_CASE("gradients agree with the fp64 adjoint for grouped heads and odd sizes") {
  for (const Kernel* kernel : kernels_with_backward())
    agrees(*kernel, draw({.shape = {.B = 2, .T = 150, .H = 2, .HV = 6, .K = 33, .V = 20}, .options = options_of(*kernel)}));
}

TEST_CASE("gradients of packed sequences stay apart") {
  for (const Kernel* kernel : kernels_with_backward())
    agrees(*kernel, draw({.shape = {.B = 1, .T = 200, .H = 1, .HV = 2, .K = 16, .V = 20},
                          .options = options_of(*kernel),
                          .cu_seqlens = {0, 0, 1, 66, 66, 130, 197, 200, 200}}));
}

TEST_CASE("gradients go through raw gates, logits and the inner l2norm") {
  for (const Kernel* kernel : kernels_with_backward())
    for (GateForm gate : {GateForm::softplus, GateForm::bounded, GateForm::sigmoid, GateForm::absent}) {
      Options options = options_of(*kernel);
      options.gate = gate;
      options.l2norm = gate != GateForm::sigmoid;
      options.beta = gate == GateForm::bounded ? BetaForm::twice_sigmoid : BetaForm::sigmoid;
      INFO(name(gate));
      agrees(*kernel, draw({.shape = {.B = 2, .T = 70, .H = 1, .HV = 2, .K = 24, .V = 9}, .options = options}));
    }
}

TEST_CASE("a loss of the outputs alone or of the final state alone is enough") {
  for (const Kernel* kernel : kernels_with_backward())
    for (bool outputs : {false, true})
      agrees(*kernel, draw({.shape = {.B = 1, .T = 40, .H = 1, .HV = 1, .K = 16, .V = 16},
                            .options = options_of(*kernel),
                            .initial_state = outputs,
                            .d_o = outputs,
                            .d_final_state = !outputs}));
}

TEST_CASE("gradients are computed again over segments when the sequence is long") {
  for (const Kernel* kernel : kernels_with_backward())
    agrees(*kernel, draw({.shape = {.B = 1, .T = 4400, .H = 1, .HV = 1, .K = 4, .V = 4}, .options = options_of(*kernel)}));
}

TEST_CASE("gradients are finite for saturated gates, zero keys, zero beta and extreme gate parameters") {
  for (const Kernel* kernel : kernels_with_backward())
    for (GateForm gate : {GateForm::softplus, GateForm::bounded})
      for (float A_log : {-std::numeric_limits<float>::infinity(), -100.0f, 5.0f, 90.0f, 1000.0f}) {
        Options options = options_of(*kernel);
        options.gate = gate;
        Problem problem = draw({.shape = {.B = 1, .T = 70, .H = 1, .HV = 1, .K = 16, .V = 16}, .options = options});
        problem.A_log[0] = A_log;
        std::fill(problem.k.begin() + 16 * 30, problem.k.begin() + 16 * 40, 0.0f);
        if (!problem.beta.empty()) std::fill(problem.beta.begin(), problem.beta.begin() + 20, 0.0f);
        const Called called = backward(*kernel, problem);
        INFO(kernel->name << " " << name(gate) << " A_log=" << A_log);
        for (Input input : all_inputs)
          for (float d : called[input])
            if (!std::isfinite(d)) FAIL("d " << name(input) << " is " << d);
        SUCCEED();
      }
}

TEST_CASE("a decay that is zero gets no gradient, and its pair with itself none either") {
  for (const Kernel* kernel : kernels_with_backward()) {
    Problem problem = draw({.shape = {.B = 1, .T = 70, .H = 1, .HV = 1, .K = 16, .V = 16}, .options = options_of(*kernel)});
    std::fill(problem.g.begin(), problem.g.end(), -1000.0f);
    const Called called = backward(*kernel, problem);
    INFO(kernel->name);
    CHECK(std::all_of(called[Input::g].begin(), called[Input::g].end(), [](float d) { return d == 0; }));
    std::fill(problem.g.begin(), problem.g.end(), -60.0f); // e^-60 of terms of order 1 is all that is left
    const Called strong = backward(*kernel, problem);
    CHECK(std::all_of(strong[Input::g].begin(), strong[Input::g].end(), [](float d) { return std::fabs(d) < 1e-20f; }));
  }
}
