// 2 x 2 cases whose answers were worked out with pencil and paper; the recurrence and its adjoint run on exact rationals.

#include "../adjoint.hpp"
#include "../spectrum.hpp"

#include <boost/multiprecision/cpp_int.hpp>
#include <catch2/catch.hpp>

using namespace kdacheck;
using Rational = boost::multiprecision::number<boost::multiprecision::cpp_rational_backend, boost::multiprecision::et_off>;
using Vector = std::vector<Rational>;

namespace {

Rational operator""_r(unsigned long long n) { return Rational(n); }

State<Rational> matrix(const Vector& element) {
  State<Rational> S(2, 2);
  S.element = element;
  return S;
}

const State<Rational> start = matrix({1, 2, 3, 4});

Token<Rational> kda_token() {
  Token<Rational> t;
  t.alpha = {1_r / 2, 1_r / 3};
  t.q = {1, 1}, t.k = {1, 2}, t.v = {1, -1};
  t.beta = 1_r / 4;
  return t;
}

Token<Rational> dplr_token() {
  Token<Rational> t;
  t.alpha = {1_r / 2, 1_r / 3};
  t.q = {1, 3}, t.k = {1, 2}, t.v = {1, -1};
  t.a = {1, -1}, t.b = {2, 1};
  return t;
}

} // namespace

TEST_CASE("two KDA tokens give the state and outputs worked out by hand") {
  const State<Rational> one = step(Rule::kda, kda_token(), start);
  CHECK(one.element == Vector{1_r / 8, -1_r / 6, 1_r / 4, -1});
  CHECK(read_out(Rational(1_r / 2), kda_token(), one) == Vector{3_r / 16, -7_r / 12});

  Token<Rational> second; // one channel kept, one forgotten; beta = 2
  second.alpha = {1, 0};
  second.q = {2, -1}, second.k = {1, -1}, second.v = {0, 3};
  second.beta = 2;
  const State<Rational> two = step(Rule::kda, second, one);
  CHECK(two.element == Vector{-1_r / 8, 37_r / 6, 1_r / 4, -19_r / 3});
  CHECK(read_out(Rational(1_r / 2), second, two) == Vector{-1_r / 4, 28_r / 3});
}

TEST_CASE("a DPLR token gives the state and output worked out by hand") {
  const State<Rational> next = step(Rule::dplr, dplr_token(), start);
  CHECK(next.element == Vector{-7_r / 2, -8, 8, 22_r / 3});
  CHECK(read_out(Rational(1_r / 2), dplr_token(), next) == Vector{41_r / 4, 7});
}

TEST_CASE("the KDA adjoint gives the gradients worked out by hand") {
  const State<Rational> next = step(Rule::kda, kda_token(), start);
  State<Rational> Lambda(2, 2);
  const Vector d_q = read_out_reverse(Rational(1_r / 2), kda_token(), next, Vector{2, 4}, Lambda);
  CHECK(Lambda.element == Vector{1, 2, 1, 2});
  CHECK(d_q == Vector{-5_r / 24, -7_r / 4});
  const TokenGradient<Rational> d = step_reverse(Rule::kda, kda_token(), start, Lambda);
  CHECK(d.v == Vector{3_r / 4, 3_r / 2});
  CHECK(d.beta == -65_r / 2);
  CHECK(d.k == Vector{-55_r / 12, -131_r / 24});
  CHECK(d.log_decay == Vector{5_r / 8, -11_r / 6});
  CHECK(Lambda.element == Vector{1_r / 8, 1_r / 4, -1_r / 6, -1_r / 3});
}

TEST_CASE("the DPLR adjoint gives the gradients worked out by hand") {
  const State<Rational> next = step(Rule::dplr, dplr_token(), start);
  State<Rational> Lambda(2, 2);
  const Vector d_q = read_out_reverse(Rational(1_r / 2), dplr_token(), next, Vector{2, 4}, Lambda);
  CHECK(Lambda.element == Vector{1, 2, 3, 6});
  CHECK(d_q == Vector{-39_r / 2, 68_r / 3});
  const TokenGradient<Rational> d = step_reverse(Rule::dplr, dplr_token(), start, Lambda);
  CHECK(d.v == Vector{7, 14});
  CHECK(d.k == Vector{-1, -3});
  CHECK(d.a == Vector{-21, -63});
  CHECK(d.b == Vector{10, 22});
  CHECK(d.log_decay == Vector{5_r / 2, 11});
  CHECK(Lambda.element == Vector{9_r / 2, 9, 3, 6});
}

TEST_CASE("beta 1 with a unit key overwrites what the key reads, exactly") {
  Token<Rational> t;
  t.alpha = {1_r / 7, 2_r / 3};
  t.q = {0, 0}, t.k = {3_r / 5, 4_r / 5}, t.v = {11, -13_r / 17};
  t.beta = 1;
  CHECK(transposed_times(step(Rule::kda, t, start), t.k) == t.v);
}

TEST_CASE("KDA is DPLR with a = beta k, b = k alpha and key beta k, exactly") {
  const Token<Rational> kda = kda_token();
  Token<Rational> dplr = kda;
  dplr.a = dplr.k = times(kda.beta, kda.k);
  for (std::size_t i = 0; i < 2; ++i) dplr.b.push_back(kda.k[i] * kda.alpha[i]);
  CHECK(step(Rule::dplr, dplr, start).element == step(Rule::kda, kda, start).element);
}

TEST_CASE("a step is the explicit K x K product plus the write, exactly") {
  Matrix<Rational> S(2, 2);
  S.element = start.element;
  for (Rule rule : {Rule::kda, Rule::dplr}) {
    const Token<Rational> t = rule == Rule::kda ? kda_token() : dplr_token();
    const Matrix<Rational> A = rule == Rule::kda ? matrix_form(transition_of(t)) : matrix_form(dplr_transition_of(t));
    const Rational strength = rule == Rule::kda ? t.beta : Rational(1);
    const Matrix<Rational> write = matrix_of<Rational>(2, 2, [&](std::int64_t i, std::int64_t j) {
      return Rational(strength * t.k[static_cast<std::size_t>(i)] * t.v[static_cast<std::size_t>(j)]);
    });
    CHECK((A * S + write).element == step(rule, t, start).element);
  }
}

TEST_CASE("a whole problem with gate, beta map, scale and loss gives the values and gradients worked out by hand, exactly") {
  // sigmoid(0) = 1/2 decays both channels, 2 sigmoid(0) = 1 is beta. X = (2,1) reads 2, w = 3 - 2, S = (3,1), o = (3 + 1) / 2.
  Problem problem;
  problem.shape = {.T = 1, .K = 2};
  problem.options = {.gate = GateForm::sigmoid, .beta = BetaForm::twice_sigmoid, .scale = 0.5f};
  problem.q = {1, 1}, problem.k = {1, 0}, problem.v = {3};
  problem.g = {0, 0}, problem.beta = {0};
  problem.initial_state = {4, 2};
  problem.d_o = {1};
  const Reverse<double> result = backward<double>(problem);
  using Values = std::vector<double>;
  CHECK(result.outputs.o == Values{2});
  CHECK(result.outputs.final_state == Values{3, 1});
  CHECK(result.gradients[Input::q] == Values{1.5, 0.5}); // S / 2
  CHECK(result.gradients[Input::v] == Values{0.5});      // m = Lambda^T k with Lambda = (1/2, 1/2)
  CHECK(result.gradients[Input::k] == Values{-0.5, 0});  // Lambda w - X m = (1/2 - 1, 1/2 - 1/2)
  CHECK(result.gradients[Input::beta] == Values{0.25});  // m w times 2 / 4
  CHECK(result.gradients[Input::g] == Values{0, 0.25});  // X Y = (0, 1/2) with Y = (0, 1/2), times sigmoid(0)
  CHECK(result.gradients[Input::initial_state] == Values{0, 0.25});
}
