// Gradients against central differences of the forward pass at 100 digits with step 1e-30.

#include "../adjoint.hpp"
#include "readers.hpp"
#include "small_problems.hpp"

#include <boost/multiprecision/mpfr.hpp>
#include <catch2/catch.hpp>

using namespace kdacheck;
using Real = boost::multiprecision::number<boost::multiprecision::mpfr_float_backend<100>, boost::multiprecision::et_off>;

namespace {

Real loss_at(const Problem& problem, const Direction<Real>& direction, const Real& step) {
  const Forward<Real> outputs = forward<Real>(problem, Moved<Real>{problem, direction, step}, Unobserved{});
  return loss(problem, outputs.o, outputs.final_state);
}

/// Compares <gradient, direction> with the difference quotient, one tensor at a time, to 25 digits of the sum of the
/// absolute terms. (Truncation is h^2 = 1e-60, rounding 1e-100 / h = 1e-70.) Returns how many tensors were compared.
int expect_gradients(const Problem& problem, std::uint64_t seed) {
  REQUIRE(malformed(problem).value_or("well formed") == "well formed");
  const Gradients<Real> gradients = backward<Real>(problem).gradients;
  const Real h("1e-30");
  int compared = 0;
  for (Input input : all_inputs) {
    if (problem[input].empty()) continue;
    Direction<Real> direction;
    move_along(direction, problem, input, seed + static_cast<std::uint64_t>(input));
    const Real quotient = (loss_at(problem, direction, h) - loss_at(problem, direction, -h)) / (2 * h);
    Real product = 0, size = 0;
    for (std::size_t i = 0; i < gradients[input].size(); ++i) {
      const Real term = gradients[input][i] * direction[input][i];
      product += term;
      size += abs(term);
    }
    INFO(describe(problem.options) << ", gradient to " << name(input) << ": " << product << " against " << quotient);
    REQUIRE(gradients[input].size() == problem[input].size());
    CHECK(abs(product - quotient) <= Real("1e-25") * size);
    CHECK(size > 0);
    ++compared;
  }
  return compared;
}

} // namespace

TEST_CASE("every gradient agrees to 25 digits for every option") {
  std::uint64_t seed = 1000;
  int compared = 0;
  for (const Options& options : every_option())
    compared += expect_gradients(make_small({.shape = {.T = 5, .H = 2, .HV = 4, .K = 3, .V = 2}, .options = options}, seed), seed), ++seed;
  CHECK(compared >= 40 * 5);
}

TEST_CASE("every gradient agrees to 25 digits on packed sequences with empty and one-token members") {
  for (Rule rule : {Rule::kda, Rule::dplr})
    for (GateForm gate : {GateForm::softplus, GateForm::bounded})
      expect_gradients(make_small({.shape = {.H = 1, .HV = 2, .K = 2, .V = 3},
                                   .options = {.rule = rule, .gate = gate, .l2norm = true, .scale = 0.5f},
                                   .lengths = {0, 1, 6, 0, 3}},
                                  31),
                       77);
}

TEST_CASE("every gradient agrees to 25 digits for either loss alone and without the optional tensors") {
  const Shape shape{.B = 2, .T = 4, .H = 1, .HV = 2, .K = 2, .V = 2};
  for (bool outputs : {false, true})
    for (GateForm gate : {GateForm::log_decay, GateForm::softplus}) {
      Problem problem = make_small({.shape = shape,
                                    .options = {.gate = gate},
                                    .initial_state = !outputs,
                                    .dt_bias = false,
                                    .d_o = outputs,
                                    .d_final_state = !outputs},
                                   41);
      if (outputs) {
        expect_gradients(problem, 5);
      } else { // q has no say in the final state
        const Gradients<Real> gradients = backward<Real>(problem).gradients;
        for (const Real& d : gradients[Input::q]) CHECK(d == 0);
        problem.d_o.assign(static_cast<std::size_t>(2 * 4 * 2 * 2), 0.0f);
        problem.d_o[0] = 1;
        expect_gradients(problem, 5);
      }
    }
}

TEST_CASE("gradients agree where checkpoints begin and end") {
  for (std::int64_t T : {1, 2, 3, 4, 8, 9, 10, 16, 17})
    expect_gradients(make_small({.shape = {.T = T, .H = 1, .HV = 1, .K = 2, .V = 2}, .options = {.gate = GateForm::sigmoid}}, 50 + T), T);
}
