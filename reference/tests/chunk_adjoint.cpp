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

TEST_CASE("gradients of scores are zero where the scores are masked") {
  for (Rule rule : {Rule::kda, Rule::dplr}) {
    const Problem problem = make_small({.shape = {.T = 4, .H = 1, .HV = 1, .K = 2, .V = 2}, .options = {.rule = rule}}, 7);
    std::vector<Token<Real>> tokens;
    for (std::int64_t t = 0; t < 4; ++t) tokens.push_back(effective_token<Real>(problem, Exactly<Real>{problem}, t, 0));
    Matrix<Real> S(2, 2), dO(4, 2), dS(2, 2);
    S.element = starting_state<Real>(problem, Exactly<Real>{problem}, 0, 0).element;
    dO.element.assign(problem.d_o.begin(), problem.d_o.end());
    dS.element.assign(problem.d_final_state.begin(), problem.d_final_state.end());
    const Chunk<Real> chunk = chunk_of(rule, tokens, Real(1), S);
    const ChunkGradient<Real> d = chunk_reverse(rule, tokens, Real(1), chunk, dO, dS);
    const auto lower = [](const Matrix<Real>& A, std::int64_t least) {
      for (std::int64_t i = 0; i < A.rows; ++i)
        for (std::int64_t j = 0; j < A.columns; ++j)
          if ((A(i, j) != 0) != (i - j >= least)) return false;
      return A.rows == 4;
    };
    CHECK(lower(d.dAkk, 1));
    CHECK(lower(d.dAqk, 0));
    if (rule == Rule::dplr) CHECK((lower(d.dAbk, 1) && lower(d.dAqa, 0)));
    CHECK(d.dAbk.element.empty() == (rule == Rule::kda));
  }
}
