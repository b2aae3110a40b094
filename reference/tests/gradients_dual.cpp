// Gradients against dual numbers: a second way that shares the forward pass but not one line of the adjoint.

#include "../adjoint.hpp"
#include "dual.hpp"
#include "readers.hpp"
#include "small_problems.hpp"

#include <boost/multiprecision/cpp_bin_float.hpp>
#include <catch2/catch.hpp>

using namespace kdacheck;
using Real = boost::multiprecision::number<boost::multiprecision::cpp_bin_float<50>, boost::multiprecision::et_off>;

namespace {

/// Reads every element as a dual number whose slope is the direction.
template <Number R> struct Along {
  const Problem& problem;
  const Direction<R>& direction;
  Dual<R> operator()(Input input, std::size_t index) const {
    return {R(static_cast<double>(problem[input][index])), direction[input].empty() ? R(0.0) : direction[input][index]};
  }
};

/// <dy, J dx> and <J^T dy, dx> with the sizes of their terms.
template <Number R> struct Products {
  R forward{0.0}, reverse{0.0}, size{0.0};
};

template <Number R> Products<R> products(const Problem& problem, const Direction<R>& direction) {
  Products<R> result;
  const Forward<Dual<R>> tangent = forward<Dual<R>>(problem, Along<R>{problem, direction}, Unobserved{});
  result.forward = loss(problem, tangent.o, tangent.final_state).slope;
  const Gradients<R> gradients = backward<R>(problem).gradients;
  for (Input input : all_inputs)
    for (std::size_t i = 0; i < direction[input].size(); ++i) {
      const R term = gradients[input][i] * direction[input][i];
      result.reverse = result.reverse + term;
      result.size = result.size + (term < R(0.0) ? R(-term) : term);
    }
  return result;
}

template <Number R> Direction<R> everything_moves(const Problem& problem, std::uint64_t seed) {
  Direction<R> direction;
  for (Input input : all_inputs) move_along(direction, problem, input, seed + static_cast<std::uint64_t>(input));
  return direction;
}

} // namespace

TEST_CASE("<dy, J dx> = <J^T dy, dx> for every option, all inputs moving at once") {
  std::uint64_t seed = 300;
  for (const Options& options : every_option()) {
    const Problem problem = make_small({.shape = {.B = 2, .T = 6, .H = 1, .HV = 2, .K = 3, .V = 4}, .options = options}, ++seed);
    const Products<Real> both = products(problem, everything_moves<Real>(problem, seed));
    INFO(describe(options) << ": " << both.forward << " against " << both.reverse);
    // 50 digits; fewer than 1e5 operations, each amplified less than 1e3 over six tokens
    CHECK(abs(both.forward - both.reverse) <= Real("1e-42") * both.size);
    CHECK(both.size > 0);
  }
}

TEST_CASE("each single element's gradient is the slope of the loss along that element") {
  for (Rule rule : {Rule::kda, Rule::dplr}) {
    const Problem problem = make_small({.shape = {.T = 3, .H = 1, .HV = 2, .K = 2, .V = 2},
                                        .options = {.rule = rule, .gate = GateForm::softplus, .beta = BetaForm::value, .l2norm = true}},
                                       9);
    const Gradients<Real> gradients = backward<Real>(problem).gradients;
    for (Input input : all_inputs)
      for (std::size_t i = 0; i < problem[input].size(); ++i) {
        Direction<Real> direction;
        direction[input].assign(problem[input].size(), Real(0));
        direction[input][i] = 1;
        const Forward<Dual<Real>> tangent = forward<Dual<Real>>(problem, Along<Real>{problem, direction}, Unobserved{});
        const Real slope = loss(problem, tangent.o, tangent.final_state).slope;
        INFO(name(rule) << " " << name(input) << "[" << i << "]");
        CHECK(abs(slope - gradients[input][i]) <= Real("1e-42") * (1 + abs(slope)));
      }
  }
}

TEST_CASE("double loses no more digits in the adjoint than its roundings explain") {
  const Problem problem = make_small({.shape = {.T = 40, .H = 1, .HV = 1, .K = 4, .V = 3}, .options = {.gate = GateForm::softplus}}, 12);
  const Gradients<double> rounded = backward<double>(problem).gradients;
  const Gradients<Real> exact = backward<Real>(problem).gradients;
  for (Input input : all_inputs) {
    double worst = 0, size = 0;
    for (std::size_t i = 0; i < rounded[input].size(); ++i) {
      worst = std::max(worst, static_cast<double>(abs(Real(rounded[input][i]) - exact[input][i])));
      size = std::max(size, static_cast<double>(abs(exact[input][i])));
    }
    INFO(name(input));
    // K + V + 20 roundings per token in each direction, 40 tokens, none amplified by more than 10
    CHECK(worst <= 10 * 2 * 40 * 27 * 0x1p-53 * size);
  }
}
