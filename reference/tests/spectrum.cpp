// Computed spectra against 50 digits, and the counterexamples: what does not hold, and what a popular heuristic does.

#include "../spectrum.hpp"
#include "../number_format.hpp"
#include "../recurrence.hpp"
#include "exact_inertia.hpp"
#include "random_transitions.hpp"

#include <boost/multiprecision/cpp_bin_float.hpp>
#include <catch2/catch.hpp>

using namespace kdacheck;
using Real = boost::multiprecision::number<boost::multiprecision::cpp_bin_float<50>, boost::multiprecision::et_off>;

namespace {

double uniform(std::mt19937_64& bits) { return static_cast<double>(bits() >> 11) * 0x1p-53; }

Transition<Real> widened(const Transition<double>& A) { return {{A.alpha.begin(), A.alpha.end()}, {A.k.begin(), A.k.end()}, Real(A.beta)}; }

/// K channels, unit key, alpha = exp(-10^u) with u uniform in [-4, 0.7], beta given.
Transition<double> gated(std::mt19937_64& bits, std::size_t K, double beta) {
  Transition<double> A{{}, {}, beta};
  double square = 0;
  for (std::size_t i = 0; i < K; ++i) {
    A.alpha.push_back(std::exp(-std::pow(10, -4 + 4.7 * uniform(bits))));
    A.k.push_back(uniform(bits) - 0.5);
    square += A.k.back() * A.k.back();
  }
  for (double& x : A.k) x /= std::sqrt(square);
  return A;
}

} // namespace

TEST_CASE("eigenvalues and singular values in double agree with fifty digits") {
  std::mt19937_64 bits(1);
  for (int draw = 0; draw < 60; ++draw) {
    const std::size_t K = 1 + static_cast<std::size_t>(draw) % 8;
    const Transition<double> A = draw % 2 == 0 ? gated(bits, K, 3 * uniform(bits)) : random_transition<double>(bits, K);
    const std::vector<Real> lambda = eigenvalues_in(widened(A), Real("1e-45"));
    const std::vector<Real> square = squared_singular_values_in(matrix_form(widened(A)), Real("1e-45"));
    // both solvers are backward stable: errors of order K 2^-53 |A|; entries of M and A are rounded thrice before
    const double allowed = 10 * static_cast<double>(K + 3) * 0x1p-53 * static_cast<double>(sqrt(square.front()));
    REQUIRE(eigenvalues(A).size() == K);
    REQUIRE(singular_values(A).size() == K);
    for (std::size_t i = 0; i < K; ++i) {
      CHECK(std::fabs(eigenvalues(A)[i] - static_cast<double>(lambda[i])) <= allowed);
      CHECK(std::fabs(singular_values(A)[i] - static_cast<double>(sqrt(abs(square[i])))) <= allowed + (square[i] < 1e-30 ? 1e-20 : 0));
    }
  }
}

TEST_CASE("computed spectra of 128 channels lie in their proved intervals") {
  std::mt19937_64 bits(7);
  for (double beta : {-0.75, 0.3, 0.999, 1.0, 1.7, 2.0, 3.5}) {
    const Transition<double> A = gated(bits, 128, beta);
    const double slack = 10 * 131 * 0x1p-53 * norm_bound(A); // of the solvers, as above
    const auto within = [&](const std::vector<double>& values, const std::vector<Interval<double>>& intervals) {
      for (std::size_t i = 0; i < values.size(); ++i)
        if (!(intervals[i].low - slack <= values[i] && values[i] <= intervals[i].high + slack)) return false;
      return values.size() == intervals.size();
    };
    INFO("beta " << beta);
    CHECK(within(eigenvalues(A), eigenvalue_intervals(A)));
    CHECK(within(singular_values(A), singular_value_intervals(A)));
    CHECK(contracts(A) == (beta >= 0 && beta <= 2 + 1e-12));
    CHECK(spectral_radius(A) <= singular_values(A).front() + slack);
  }
}

TEST_CASE("the log determinant of a sequence is that of the product") {
  std::mt19937_64 bits(8);
  int finite = 0;
  for (int draw = 0; draw < 200; ++draw) {
    std::vector<Transition<Real>> sequence;
    Matrix<Rational> product = identity<Rational>(3);
    for (int t = 0; t < 6; ++t) {
      const Transition<Rational> A = random_transition<Rational>(bits, 3);
      product = matrix_form(A) * product;
      sequence.push_back(
          {{Real(A.alpha[0]), Real(A.alpha[1]), Real(A.alpha[2])}, {Real(A.k[0]), Real(A.k[1]), Real(A.k[2])}, Real(A.beta)});
    }
    const Rational exact = determinant_of(product);
    if (abs(exact) < Rational(1, 1000000000)) continue; // 0, or 1 - tau lost to the fifty digits
    CHECK(abs(log_absolute_determinant(sequence) - log(Real(abs(exact)))) <= Real("1e-35"));
    ++finite;
  }
  CHECK(finite > 5);
}

TEST_CASE("the norm of the state obeys its bound at every token, and comes near it") {
  std::mt19937_64 bits(9);
  double nearest = 0;
  for (int draw = 0; draw < 200; ++draw) {
    const Transition<double> A = random_transition<double>(bits, 4);
    Matrix<double> S(4, 3), v(3, 1), k(4, 1);
    for (double& x : S.element) x = uniform(bits) - 0.5;
    for (double& x : v.element) x = (draw % 3) * (uniform(bits) - 0.5);
    k.element = times(A.beta, A.k);
    const auto frobenius = [](const Matrix<double>& M) {
      double sum = 0;
      for (double x : M.element) sum += x * x;
      return std::sqrt(sum);
    };
    const double after = frobenius(matrix_form(A) * S + k * transposed(v)), bound = state_norm_bound(A, frobenius(S), frobenius(v));
    CHECK(after <= bound * (1 + 100 * 0x1p-53)); // some fifty roundings
    nearest = std::max(nearest, after / bound);
  }
  CHECK(nearest > 0.8);
}

TEST_CASE("KDA as DPLR has the same spectrum, norm, determinant and trace") {
  std::mt19937_64 bits(2);
  for (int draw = 0; draw < 40; ++draw) {
    const Transition<Rational> A = random_transition<Rational>(bits, 4);
    const DplrTransition<Rational> B = as_dplr(A);
    CHECK(matrix_form(B).element == matrix_form(A).element);
    CHECK(determinant(B) == determinant(A));
    CHECK(trace(B) == trace(A));
    CHECK(one_signed(B));
  }
  const Transition<double> A = gated(bits, 6, 1.5);
  const std::vector<std::complex<double>> general = eigenvalues(as_dplr(A));
  for (std::size_t i = 0; i < 6; ++i) {
    CHECK(std::fabs(general[i].real() - eigenvalues(A)[i]) <= 1e-12); // condition sqrt(alpha_max / alpha_min) < 13
    CHECK(std::fabs(general[i].imag()) <= 1e-12);
  }
}

TEST_CASE("DPLR: determinant and trace are exact, and the norm is at most d_max + |a| |b|") {
  std::mt19937_64 bits(3);
  for (int draw = 0; draw < 100; ++draw) {
    const auto vector = [&] { return random_transition<Rational>(bits, 4).k; };
    const DplrTransition<Rational> A{random_transition<Rational>(bits, 4).alpha, vector(), vector()};
    const Matrix<Rational> dense = matrix_form(A);
    CHECK(determinant_of(dense) == determinant(A));
    CHECK(trace(A) == dense(0, 0) + dense(1, 1) + dense(2, 2) + dense(3, 3));
    DplrTransition<double> rounded;
    for (std::size_t i = 0; i < 4; ++i) {
      rounded.d.push_back(static_cast<double>(A.d[i]));
      rounded.a.push_back(static_cast<double>(A.a[i]));
      rounded.b.push_back(static_cast<double>(A.b[i]));
    }
    CHECK(singular_values(rounded).front() <= norm_bound(rounded) * (1 + 100 * 0x1p-53));
  }
}

TEST_CASE("DPLR with one sign of a_i b_i has a real spectrum that interlaces d") {
  // diagonally similar to D -+ u u^T, u_i = sqrt|a_i b_i|; checked through the polynomial: every sign change is there
  std::mt19937_64 bits(4);
  for (int draw = 0; draw < 100; ++draw) {
    DplrTransition<Rational> A{{}, {}, {}};
    for (int i = 0; i < 4; ++i) { // distinct d, a_i b_i > 0
      A.d.push_back(Rational(i * 16 + static_cast<int>(bits() % 15) + 1, 64));
      A.a.push_back(Rational(static_cast<int>(bits() % 31) - 15, 8) + Rational(1, 16));
      A.b.push_back(A.a.back() * Rational(1 + static_cast<int>(bits() % 9), 8));
    }
    REQUIRE(one_signed(A));
    const std::vector<Rational> c = characteristic_polynomial(matrix_form(A));
    const auto p = [&](const Rational& x) { return Rational(c[0] + x * (c[1] + x * (c[2] + x * (c[3] + x * c[4])))); };
    CHECK(p(A.d[3]) > 0); // the largest root lies below the largest d ...
    CHECK(p(A.d[2]) < 0); // ... and above the next, and so on
    CHECK(p(A.d[1]) > 0);
    CHECK(p(A.d[0]) < 0);
  }
}

TEST_CASE("DPLR in general has complex eigenvalues") {
  const DplrTransition<double> A{{1, 0.5}, {1, 1}, {0.25, -0.25}};
  CHECK_FALSE(one_signed(A));
  const auto values = eigenvalues(A); // trace 3/2, determinant 5/8: 3/4 +- i/4
  CHECK(std::abs(values[0] - std::complex<double>(0.75, 0.25)) <= 1e-14);
  CHECK(std::abs(values[1] - std::complex<double>(0.75, -0.25)) <= 1e-14);
}

TEST_CASE("DPLR of the form I - k (a k)^T with a in [0,1] has radius 1 and yet products that grow") {
  const auto transition = [](const Rational& k0, const Rational& k1, const Rational& a0, const Rational& a1) {
    return DplrTransition<Rational>{{1, 1}, {k0, k1}, {a0 * k0, a1 * k1}};
  };
  const auto one = transition(Rational(15, 17), Rational(8, 17), 0, 1), other = transition(Rational(5, 13), Rational(12, 13), 1, 0);
  for (const auto& A : {one, other}) { // eigenvalues 1 and det in [0,1)
    CHECK(trace(A) == 1 + determinant(A));
    CHECK((determinant(A) >= 0 && determinant(A) < 1));
    CHECK_FALSE(positive_semidefinite(identity<Rational>(2) - transposed(matrix_form(A)) * matrix_form(A))); // norm > 1
  }
  const std::vector<Rational> c = characteristic_polynomial(matrix_form(one) * matrix_form(other));
  const Rational x(6, 5);
  CHECK(c[0] + x * (c[1] + x * c[2]) < 0); // the radius of the product is above 1.2
}

TEST_CASE("the heuristic warns of most contractions and is silent for every expansion with beta in [-1,0)") {
  std::mt19937_64 bits(5);
  int contracting = 0, warned = 0, expanding = 0, silent = 0;
  for (int draw = 0; draw < 2000; ++draw) {
    const Transition<double> inside = gated(bits, 4, 0.01 + 0.98 * uniform(bits));
    if (contracts(inside)) ++contracting, warned += heuristic_warns(inside, 1.0);
    const Transition<double> outside = gated(bits, 4, -uniform(bits));
    if (!contracts(outside)) ++expanding, silent += !heuristic_warns(outside, 1.0);
  }
  CHECK(contracting == 2000); // tau in [0,1] never expands
  CHECK(warned > contracting / 2);
  CHECK(expanding > 100);
  CHECK(silent == expanding);
}

TEST_CASE("unit keys stored in bf16 have norms on both sides of 1, so beta 2 without decay expands for some of them") {
  std::mt19937_64 bits(6);
  int above = 0, below = 0;
  for (int draw = 0; draw < 200; ++draw) {
    Transition<double> A = gated(bits, 128, 2);
    for (double& x : A.k) x = round_bf16(static_cast<float>(x));
    for (double& alpha : A.alpha) alpha = 1;
    const double excess = tau(A) - 2; // products of 8-bit significands: the sum is exact in double
    CHECK(contracts(A) == (excess <= 0));
    CHECK(singular_values(A).front() == Approx(std::max(1.0, 1 + excess)).epsilon(10 * 131 * 0x1p-53)); // as above
    (excess > 0 ? above : below)++;
  }
  CHECK(above > 20);
  CHECK(below > 20);
}
