// The recurrence and the chunk algebra are derived apart and share only the tokens: they must be the same function.

#include "../chunk_algebra.hpp"
#include "small_problems.hpp"

#include <boost/multiprecision/cpp_bin_float.hpp>
#include <catch2/catch.hpp>

using namespace kdacheck;
using Real = boost::multiprecision::number<boost::multiprecision::cpp_bin_float<50>, boost::multiprecision::et_off>;

namespace {

/// Largest difference, relative to the largest element.
double relative_difference(const std::vector<Real>& x, const std::vector<Real>& y) {
  if (x.size() != y.size()) return std::numeric_limits<double>::infinity();
  Real difference = 0, size = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const Real here = abs(x[i] - y[i]);
    if (!(here <= difference)) difference = here; // a NaN is kept
    size = std::max<Real>(size, abs(x[i]));
  }
  return static_cast<double>(difference / (size > 0 ? size : Real(1)));
}

/// 50 digits less the growth of rounding errors: each is 2^-168 = 3e-51, and what they are amplified by (products of at
/// most 16 transitions D - a b^T of norm below 2.3, summed over T K operations) stays below 3e6. A wrong formula differs in
/// the first digits.
constexpr double agreement = 1e-44;

void expect_same(const Problem& problem, std::int64_t C) {
  const Forward<Real> token_by_token = forward<Real>(problem), by_chunks = forward_by_chunks<Real>(problem, C);
  INFO(describe(problem.options) << ", C = " << C);
  CHECK(relative_difference(token_by_token.o, by_chunks.o) < agreement);
  CHECK(relative_difference(token_by_token.final_state, by_chunks.final_state) < agreement);
}

} // namespace

TEST_CASE("recurrence and chunk algebra agree for every option") {
  std::uint64_t seed = 1;
  for (const Options& options : every_option())
    expect_same(make_small({.shape = {.B = 2, .T = 7, .H = 2, .HV = 4, .K = 3, .V = 2}, .options = options}, seed++), 3);
}

TEST_CASE("recurrence and chunk algebra agree for every chunk length and tail") {
  for (Rule rule : {Rule::kda, Rule::dplr})
    for (std::int64_t C : {1, 2, 5, 8, 16, 17, 64}) {
      const std::int64_t T = rule == Rule::kda ? 17 : 16;
      expect_same(make_small({.shape = {.T = T, .H = 1, .HV = 1, .K = 4, .V = 5}, .options = {.rule = rule}}, 90 + C), C);
    }
}

TEST_CASE("recurrence and chunk algebra agree on packed sequences with empty and one-token members") {
  for (Rule rule : {Rule::kda, Rule::dplr})
    for (bool state : {false, true})
      expect_same(make_small({.shape = {.H = 1, .HV = 3, .K = 2, .V = 3},
                              .options = {.rule = rule},
                              .lengths = {0, 1, 9, 0, 4, 1, 0},
                              .initial_state = state},
                             7),
                  4);
}

TEST_CASE("recurrence and chunk algebra agree for nearly equal keys, no decay and beta 2") {
  Problem problem = make_small({.shape = {.T = 33, .H = 1, .HV = 1, .K = 4, .V = 2}}, 5);
  for (std::size_t i = 0; i < problem.k.size(); ++i) problem.k[i] = 0.5f + 0.001f * problem.k[i];
  for (float& g : problem.g) g *= 1e-6f;
  for (float& beta : problem.beta) beta = 2.0f;
  expect_same(problem, 16);
}

TEST_CASE("W S is what the decayed keys read, so U = T beta V - W S") {
  const Problem problem = make_small({.shape = {.T = 6, .H = 1, .HV = 1, .K = 3, .V = 2}}, 11);
  int chunks = 0;
  forward_by_chunks<Real>(problem, Exactly<Real>{problem}, 4,
                          [&](const Sequence&, std::int64_t head, std::int64_t first, const Chunk<Real>& chunk) {
                            Matrix<Real> written(chunk.U.rows, 2);
                            for (std::int64_t i = 0; i < written.rows; ++i) {
                              const Token<Real> token = effective_token<Real>(problem, Exactly<Real>{problem}, first + i, head);
                              for (std::int64_t j = 0; j < 2; ++j) written(i, j) = token.beta * token.v[static_cast<std::size_t>(j)];
                            }
                            const Matrix<Real> U = chunk.T * written - chunk.W * chunk.start;
                            CHECK(relative_difference(U.element, chunk.U.element) < agreement);
                            ++chunks;
                          });
  CHECK(chunks == 2);
}
