// The reverse mode of the chunk algebra and that of the recurrence are derived apart: they must give the same gradients.

#include "../chunk_adjoint.hpp"
#include "small_problems.hpp"

#include <boost/multiprecision/mpfr.hpp>
#include <catch2/catch.hpp>

using namespace kdacheck;
using Real = boost::multiprecision::number<boost::multiprecision::mpfr_float_backend<50>, boost::multiprecision::et_off>;

namespace {

/// As for the values (tests/chunk_algebra.cpp): roundings of 3e-51, amplified by less than 3e6; relative to the largest
/// element of each gradient.
void expect_same(const Problem& problem, std::int64_t C) {
  const Gradients<Real> token_by_token = backward<Real>(problem).gradients, by_chunks = gradients_by_chunks<Real>(problem, C);
  for (Input input : all_inputs) {
    const std::vector<Real>&x = token_by_token[input], &y = by_chunks[input];
    REQUIRE(x.size() == y.size());
    Real worst = 0, size = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const Real difference = abs(x[i] - y[i]);
      if (!(difference <= worst)) worst = difference;
      size = std::max<Real>(size, abs(x[i]));
    }
    INFO(describe(problem.options) << ", C = " << C << ", gradient to " << name(input) << ": differs by " << worst << " of " << size);
    CHECK(worst <= Real("1e-44") * size);
  }
}

} // namespace

TEST_CASE("both derivations give the same gradients for every option") {
  std::uint64_t seed = 400;
  for (const Options& options : every_option())
    expect_same(make_small({.shape = {.B = 2, .T = 7, .H = 1, .HV = 2, .K = 3, .V = 2}, .options = options}, seed++), 3);
}

TEST_CASE("both derivations give the same gradients for every chunk length and tail, packed or not") {
  for (Rule rule : {Rule::kda, Rule::dplr})
    for (std::int64_t C : {1, 2, 5, 16, 17}) {
      expect_same(make_small({.shape = {.T = 16, .H = 1, .HV = 1, .K = 4, .V = 3}, .options = {.rule = rule}}, 90 + C), C);
      expect_same(make_small({.shape = {.H = 1, .HV = 2, .K = 2, .V = 3}, .options = {.rule = rule}, .lengths = {0, 1, 6, 0, 3}}, 80 + C),
                  C);
    }
}

TEST_CASE("the diagonal of the scores contributes exactly nothing to the gate") {
  // one token, no state: o = scale (q . k) beta v does not depend on g
  for (Rule rule : {Rule::kda, Rule::dplr}) {
    const Problem problem = make_small(
        {.shape = {.T = 1, .H = 1, .HV = 1, .K = 3, .V = 2}, .options = {.rule = rule}, .initial_state = false, .d_final_state = false}, 6);
    const std::vector<Real> zero(3, Real(0));
    CHECK(gradients_by_chunks<Real>(problem, 4)[Input::g] == zero);
    CHECK(backward<Real>(problem).gradients[Input::g] == zero);
  }
}
