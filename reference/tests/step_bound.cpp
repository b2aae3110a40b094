// What an error in the state is multiplied by in one token, and the rounding of bounds themselves, against exact arithmetic.

#include "../effective.hpp"
#include "../segment.hpp"
#include "../spectrum.hpp"
#include "exact_inertia.hpp"
#include "mpfr_distance.hpp"
#include "random_problem.hpp"
#include "random_transitions.hpp"

#include <boost/multiprecision/cpp_bin_float.hpp>
#include <catch2/catch.hpp>

using namespace kdacheck;
using namespace kdacheck::test;
using certified::StepBound;

namespace {

template <class From> std::vector<Rational> exactly_all(const std::vector<From>& values) { return {values.begin(), values.end()}; }

double dot(const std::vector<double>& x, const std::vector<double>& y) {
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) sum += x[i] * y[i];
  return sum;
}

std::vector<double> product(const std::vector<double>& x, const std::vector<double>& y) {
  std::vector<double> result;
  for (std::size_t i = 0; i < x.size(); ++i) result.push_back(x[i] * y[i]);
  return result;
}

double norm_above(const std::vector<double>& x) { return std::sqrt(dot(x, x)) * certified::rounded_up + certified::norm_floor; }

/// Whether |A|_2 <= bound, decided in rationals.
bool norm_is_at_most(const Matrix<Rational>& A, const Rational& bound) {
  return positive_semidefinite(scaled(bound * bound, identity<Rational>(A.rows)) - transposed(A) * A);
}

const Rational hair = 1 + Rational(1, std::int64_t{1} << 30);

} // namespace

TEST_CASE("the growth of a KDA step is at least the norm of its transition, and no more than the proved bounds on it") {
  std::mt19937_64 bits(21);
  int sharp = 0, reflecting = 0;
  for (int draw = 0; draw < 600; ++draw) {
    const Transition<double> A = random_transition<double>(bits, 1 + static_cast<std::size_t>(draw % 6));
    const Transition<Rational> exact{exactly_all(A.alpha), exactly_all(A.k), Rational(A.beta)};
    StepBound step{.alpha_max = *std::max_element(A.alpha.begin(), A.alpha.end()), .key_norm = norm_above(A.k), .beta = std::fabs(A.beta)};
    const std::vector<double> scaled_key = product(A.alpha, A.k);
    certified::bound_kda_step(step, A.beta, dot(A.k, A.k), dot(scaled_key, scaled_key) * certified::rounded_up + certified::norm_floor);
    const Rational growth(step.growth), distance = 1 - tau(exact), reflection = std::max<Rational>(1, abs(distance));
    CHECK(norm_is_at_most(matrix_form(exact), growth));
    CHECK(Rational(step.reflection) >= reflection);
    CHECK(Rational(step.reflection) <= reflection * hair);
    CHECK(growth * growth <=
          std::min<Rational>(norm_bound(exact) * norm_bound(exact), squared_norm_bound(exact)) * hair * hair + Rational(1, 1 << 30));
    sharp += !norm_is_at_most(matrix_form(exact), growth / hair) && growth > 0;
    reflecting += reflection > 1;
  }
  CHECK(sharp > 100); // a growth that were a billionth smaller would not do
  CHECK(reflecting > 100);
}

TEST_CASE("the growth of a DPLR step is at least the norm of its transition, and that of a rank-one change of a multiple of I") {
  std::mt19937_64 bits(22);
  int sharp = 0;
  for (int draw = 0; draw < 600; ++draw) {
    const std::size_t K = 1 + static_cast<std::size_t>(draw % 5);
    const double size = std::ldexp(1.0, 4 * (draw % 7) - 12);
    DplrTransition<double> A{random_transition<double>(bits, K).alpha, random_transition<double>(bits, K).k,
                             random_transition<double>(bits, K).k};
    for (double& x : A.a) x *= size;
    if (draw % 3 == 0) A.d.assign(K, 0.75);
    if (draw % 6 == 0) A.b = A.a;
    const std::vector<double> scaled_a = product(A.d, A.a);
    const double alpha_max = *std::max_element(A.d.begin(), A.d.end());
    const Rational growth(
        certified::rank_one_growth(alpha_max, norm_above(A.a), norm_above(A.b), norm_above(scaled_a), dot(scaled_a, A.b)));
    const Matrix<Rational> exact = matrix_form(DplrTransition<Rational>{exactly_all(A.d), exactly_all(A.a), exactly_all(A.b)});
    CHECK(norm_is_at_most(exact, growth));
    // ||A||^2 <= max(D)^2 + lambda is an equation where D is a multiple of I, unless a rank of two leaves no direction alone
    if (draw % 3 == 0 && K >= 3) CHECK_FALSE(norm_is_at_most(exact, growth / (1 + Rational(1, 1 << 20))));
    sharp += growth > 0 && !norm_is_at_most(exact, growth / hair);
  }
  CHECK(sharp > 50);
}

TEST_CASE("bounds of a token hold for the exact decays, keys and strengths of every gate, beta form and rule") {
  using Real = boost::multiprecision::number<boost::multiprecision::cpp_bin_float<80>, boost::multiprecision::et_off>;
  int tokens = 0, outside = 0, shrunk = 0, long_keys = 0, far = 0, general = 0;
  for (std::uint64_t seed = 0; seed < 600; ++seed) {
    const Problem problem = random_problem(seed);
    const auto [B, T, H, HV, K, V] = problem.shape;
    for (const Sequence& sequence : sequences(problem))
      for (std::int64_t head = 0; head < HV; ++head) {
        certified::Segment<certified::Fp64Arithmetic> segment;
        certified::SegmentBuilder<certified::Fp64Arithmetic>({problem, sequence, head}).build(0, sequence.length, segment);
        for (std::int64_t t = 0; t < sequence.length; ++t) {
          const StepBound& step = segment.bound[static_cast<std::size_t>(t)];
          const Token<Real> exact = effective_token<Real>(problem, Exactly<Real>{problem}, sequence.first + t, head);
          const auto norm = [](const std::vector<Real>& x) {
            Real sum = 0;
            for (const Real& entry : x) sum += entry * entry;
            return Real(sqrt(sum));
          };
          const bool dplr = problem.options.rule == Rule::dplr;
          const Matrix<Real> A = dplr ? matrix_form(dplr_transition_of(exact)) : matrix_form(transition_of(exact));
          const Real growth = sqrt(abs(squared_singular_values_in(A, Real("1e-60")).front()));
          // what 80 digits lose is far below the 2^-40 by which bounds are rounded up
          const auto holds = [&](const Real& truth, double bound) {
            ++tokens;
            outside += !(truth <= Real(bound) * (1 + Real("1e-50")) + Real("1e-150"));
            shrunk += truth > Real(bound) * (1 - Real(0x1p-30));
          };
          holds(growth, step.growth);
          holds(norm(exact.q), step.query_norm);
          holds(norm(exact.k), step.key_norm);
          if (dplr)
            holds(norm(exact.a), step.erase_norm), holds(norm(exact.b), step.read_norm);
          else
            holds(abs(exact.beta), step.beta);
          for (std::size_t i = 0; i < exact.alpha.size(); ++i) {
            const double computed = segment.row(segment.alpha, t)[i];
            holds(exact.alpha[i], step.alpha_max);
            outside += !(abs(exact.alpha[i] - Real(computed)) <=
                         Real(step.alpha_relative) * Real(computed) + Real(step.alpha_flush) + Real("1e-280"));
          }
          long_keys += norm(exact.k) > 1;
          far += !dplr && exact.beta > 2;
          general += dplr;
        }
      }
  }
  CHECK(outside == 0);
  CHECK(tokens > 10000);
  CHECK(shrunk > tokens / 10); // most bounds are sharp: a billionth less would be too little
  CHECK(std::min({long_keys, far, general}) > 100);
}

TEST_CASE("a norm of 4096 channels, taken in rounded arithmetic, is an upper bound because it is rounded up") {
  std::mt19937_64 bits(23);
  int below_unless_rounded_up = 0;
  for (int draw = 0; draw < 200; ++draw) {
    std::vector<double> x(4096);
    for (double& entry : x) {
      entry = static_cast<double>(bits() >> 11) * 0x1p-53 - 0.5;
      if (draw % 4 == 1) entry = std::ldexp(entry, -static_cast<int>(bits() % 600)); // squares down to nothing
      if (draw % 4 == 2) entry = std::ldexp(entry, -530);                            // nothing else
      if (draw % 4 == 3) entry = 1 + 0x1p-52 * static_cast<double>(bits() % 1024);
    }
    Mpfr sum, square;
    for (double entry : x) {
      mpfr_set_d(square.get(), entry, MPFR_RNDU);
      mpfr_sqr(square.get(), square.get(), MPFR_RNDU);
      mpfr_add(sum.get(), sum.get(), square.get(), MPFR_RNDU);
    }
    mpfr_sqrt(sum.get(), sum.get(), MPFR_RNDU);
    const double root = std::sqrt(certified::square_of(x.data(), 4096));
    CHECK(mpfr_cmp_d(sum.get(), root * certified::rounded_up + certified::norm_floor) <= 0);
    below_unless_rounded_up += mpfr_cmp_d(sum.get(), root) > 0;
  }
  CHECK(below_unless_rounded_up > 50);
}
