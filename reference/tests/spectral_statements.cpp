// The statements S1 to S11 about A = P D, P = I - beta k k^T, D = Diag(alpha), tau = beta |k|^2, each with its proof,
// decided in exact rationals: no tolerance anywhere but in S1 and S9, which need square roots.
//
// Eigenvalues of P D below x are counted by Sylvester's law: for D > 0, P D has as many eigenvalues below x as the
// symmetric pencil P - x D^{-1} has negative ones, because D^{1/2} (P - x D^{-1}) D^{1/2} = M - x I.

#include "../spectrum.hpp"
#include "exact_inertia.hpp"
#include "random_transitions.hpp"

#include <boost/multiprecision/cpp_bin_float.hpp>
#include <catch2/catch.hpp>

using namespace kdacheck;
using Real = boost::multiprecision::number<boost::multiprecision::cpp_bin_float<50>, boost::multiprecision::et_off>;

namespace {

constexpr int draws = 400;

/// 2^-n
Rational small(int n) { return Rational(1) / Rational(boost::multiprecision::cpp_int(1) << n); }

/// A transition at the edge of the statements: decays 2^-40 from one another, from 1 or from 0; a key whose channels differ by 2^30; tau on
/// 0, 1 or 2, 2^-80 from it, or far outside.
Transition<Rational> adversarial_transition(std::mt19937_64& bits, std::size_t K) {
  const auto one_of = [&](std::initializer_list<Rational> values) { return *(values.begin() + bits() % values.size()); };
  const Rational tie = Rational(static_cast<int>(bits() % 15) + 1, 16);
  Transition<Rational> A;
  Rational norm = 0;
  for (std::size_t i = 0; i < K; ++i) {
    A.alpha.push_back(one_of({tie, tie, tie + small(40), tie - small(40), 1, 1 - small(40), small(40), small(60)}));
    A.k.push_back(one_of({1, -1, small(15), -small(30), Rational(3, 7), 0}));
    norm += A.k.back() * A.k.back();
  }
  const Rational wanted = one_of({0, 1, 2, 1, 2, -1, -4, 5, Rational(3, 2)}) + one_of({0, small(80), -small(80)});
  A.beta = norm == 0 ? wanted : wanted / norm;
  return A;
}

/// Calls visit with random transitions of 1 to 5 channels and adversarial ones of 1 to 6.
template <class Visit> void over_transitions(std::uint64_t seed, Visit visit) {
  std::mt19937_64 bits(seed);
  for (int draw = 0; draw < draws; ++draw) visit(random_transition<Rational>(bits, 1 + static_cast<std::size_t>(draw % 5)));
  for (int draw = 0; draw < draws; ++draw) visit(adversarial_transition(bits, 1 + static_cast<std::size_t>(draw % 6)));
}

bool invertible_decay(const Transition<Rational>& A) { return *std::min_element(A.alpha.begin(), A.alpha.end()) > 0; }

/// P - x D^{-1}
Matrix<Rational> pencil(const Transition<Rational>& A, const Rational& x) {
  const auto at = [](const std::vector<Rational>& values, std::int64_t i) { return values[static_cast<std::size_t>(i)]; };
  const auto K = static_cast<std::int64_t>(A.k.size());
  return matrix_of<Rational>(K, K, [&](std::int64_t i, std::int64_t j) {
    return Rational((i == j ? 1 - x / at(A.alpha, i) : Rational(0)) - A.beta * at(A.k, i) * at(A.k, j));
  });
}

/// The i-th largest eigenvalue (i from 0) lies in the interval: at most i lie above it, at least i + 1 at or above its foot.
bool eigenvalue_lies_in(const Transition<Rational>& A, std::size_t i, const Interval<Rational>& interval) {
  const Signs above = signs_of(pencil(A, interval.high)), foot = signs_of(pencil(A, interval.low));
  return above.positive <= static_cast<int>(i) && foot.positive + foot.zero >= static_cast<int>(i) + 1;
}

/// x I - A^T A
Matrix<Rational> norm_gap(const Matrix<Rational>& A, const Rational& x) {
  return scaled(x, identity<Rational>(A.rows)) - transposed(A) * A;
}

Transition<Real> widened(const Transition<Rational>& A) {
  Transition<Real> result{{}, {}, Real(A.beta)};
  for (const Rational& x : A.alpha) result.alpha.push_back(Real(x));
  for (const Rational& x : A.k) result.k.push_back(Real(x));
  return result;
}

} // namespace

TEST_CASE("S1: all eigenvalues are real, those of D^{1/2} P D^{1/2}, also where alpha is 0") {
  // P D = (P D^{1/2}) D^{1/2} and spec(X Y) = spec(Y X) for square X, Y. Compared through det(x I - A), so multiplicities count.
  over_transitions(1, [](const Transition<Rational>& A) {
    const std::vector<Real> roots = eigenvalues_in(widened(A), Real("1e-45"));
    std::vector<Real> product{1}; // prod (x - root), lowest power first
    for (const Real& root : roots) {
      product.insert(product.begin(), Real(0));
      for (std::size_t i = 0; i + 1 < product.size(); ++i) product[i] -= root * product[i + 1];
    }
    const std::vector<Rational> expected = characteristic_polynomial(matrix_form(A));
    REQUIRE(expected.size() == product.size());
    for (std::size_t i = 0; i < expected.size(); ++i) // five roots of size up to 20, each within 1e-44 of itself
      CHECK(abs(product[i] - Real(expected[i])) <= Real("1e-37"));
  });
}

TEST_CASE("S2: eigenvalues interlace alpha, and their sum drops by beta k^T D k") {
  // M = D - beta u u^T with u = D^{1/2} k is a rank-one change (Cauchy, Weyl); the trace of u u^T is k^T D k.
  over_transitions(2, [](const Transition<Rational>& A) {
    if (!invertible_decay(A)) return;
    const auto intervals = eigenvalue_intervals(A);
    for (std::size_t i = 0; i < intervals.size(); ++i) CHECK(eigenvalue_lies_in(A, i, intervals[i]));
    Rational sum = 0, drop = 0;
    for (std::size_t i = 0; i < A.k.size(); ++i) {
      sum += A.alpha[i];
      drop += A.beta * A.k[i] * A.k[i] * A.alpha[i];
    }
    CHECK(trace(A) == sum - drop);
  });
}

TEST_CASE("S3: det A = (1 - tau) prod alpha, tr A = sum alpha (1 - beta k^2), and determinants multiply along a sequence") {
  // det(P) = 1 - beta k^T k (matrix determinant lemma); det of a product is the product.
  Matrix<Rational> product;
  Rational expected = 1;
  over_transitions(3, [&](const Transition<Rational>& A) {
    const Matrix<Rational> dense = matrix_form(A);
    CHECK(determinant_of(dense) == determinant(A));
    Rational sum = 0;
    for (std::int64_t i = 0; i < dense.rows; ++i) sum += dense(i, i);
    CHECK(sum == trace(A));
    if (dense.rows != 3) return;
    const bool restart = product.rows == 0 || expected == 0 || abs(expected) < Rational(1, 1000000);
    product = restart ? dense : dense * product;
    expected = restart ? determinant(A) : expected * determinant(A);
    CHECK(determinant_of(product) == expected);
  });
}

TEST_CASE("S4: one eigenvalue is negative exactly if beta |k|^2 > 1 on the channels with alpha > 0, and zeros are as counted") {
  // There M is congruent to P (Sylvester), whose eigenvalues are 1 and 1 - tau; channels with alpha = 0 are zero rows.
  int negative = 0, zero = 0;
  over_transitions(4, [&](const Transition<Rational>& A) {
    // signs of the real roots of det(x I - A): zeros are the trailing zero coefficients, negatives by Descartes' rule
    const std::vector<Rational> c = characteristic_polynomial(matrix_form(A));
    Inertia found;
    while (c[static_cast<std::size_t>(found.zero)] == 0) ++found.zero;
    int changes = 0, last = 0;
    for (std::size_t i = 0; i < c.size(); ++i) {
      const int sign = (c[i] > 0) - (c[i] < 0), mirrored = i % 2 == 0 ? sign : -sign;
      changes += last * mirrored < 0;
      if (mirrored != 0) last = mirrored;
    }
    found.negative = changes; // exact, because all roots are real
    CHECK(found == inertia(A));
    negative += found.negative;
    zero += found.zero;
  });
  CHECK(negative > draws / 10);
  CHECK(zero > draws / 10);
}

TEST_CASE("S5: the smallest eigenvalue lies between its bounds, and meets both where alpha is constant on the key") {
  // Upper: Rayleigh quotient of M at D^{-1/2} k is (1 - tau) HM. Lower, tau <= 1: M >= (1 - tau) D. Lower, tau > 1: the
  // secular equation 1 = tau E[alpha / (alpha - lambda)] and Jensen (concave in alpha) give -lambda <= (tau - 1) AM.
  int above_one = 0;
  over_transitions(5, [&](const Transition<Rational>& A) {
    if (!invertible_decay(A)) return;
    CHECK(eigenvalue_lies_in(A, A.k.size() - 1, smallest_eigenvalue(A)));
    above_one += tau(A) > 1;
    if (A.beta >= 0 && tau(A) > 1 && std::all_of(A.alpha.begin(), A.alpha.end(), [&](const Rational& a) { return a == A.alpha[0]; }))
      CHECK(smallest_eigenvalue(A).low == smallest_eigenvalue(A).high);
  });
  CHECK(above_one > draws / 10);
}

TEST_CASE("S6: the spectrum lies in [0, alpha_max] for tau in [0,1], reaches down to -(tau - 1) AM for tau > 1, and never beyond alpha_max "
          "max(1,|1 - tau|)") {
  // S2 bounds above, S4 and S5 below; the radius of M is at most |D^{1/2}|^2 |P|.
  over_transitions(6, [](const Transition<Rational>& A) {
    if (!invertible_decay(A)) return;
    const Rational most = *std::max_element(A.alpha.begin(), A.alpha.end()), t = tau(A);
    const auto all_within = [&](const Rational& low, const Rational& high) {
      return signs_of(pencil(A, low)).negative == 0 && signs_of(pencil(A, high)).positive == 0;
    };
    CHECK(all_within(-norm_bound(A), norm_bound(A)));
    if (t >= 0 && t <= 1) CHECK(all_within(0, most));
    if (t > 1) CHECK(all_within(-(t - 1) * arithmetic_mean_on_key(A), most));
  });
}

TEST_CASE("S7: |A| <= alpha_max max(1,|1 - tau|); singular values interlace alpha from below for tau in [0,2], from above otherwise") {
  // |P| = max(1, |1 - tau|); A^T A = D^2 - beta (2 - tau) (D k)(D k)^T is a rank-one change of sign -beta (2 - tau).
  int below = 0, above = 0;
  over_transitions(7, [&](const Transition<Rational>& A) {
    const Matrix<Rational> dense = matrix_form(A);
    CHECK(positive_semidefinite(norm_gap(dense, norm_bound(A) * norm_bound(A))));
    const auto intervals = singular_value_intervals(A);
    for (std::size_t i = 0; i < intervals.size(); ++i) {
      const Signs ceiling = signs_of(norm_gap(dense, intervals[i].high * intervals[i].high)); // negative: singular values above
      const Signs foot = signs_of(norm_gap(dense, intervals[i].low * intervals[i].low));
      CHECK(ceiling.negative <= static_cast<int>(i));
      CHECK(foot.negative + foot.zero >= static_cast<int>(i) + 1);
    }
    (tau(A) >= 0 && tau(A) <= 2 ? below : above)++;
  });
  CHECK(std::min(below, above) > draws / 10);
}

TEST_CASE("S8: the criterion says exactly whether |A| <= 1, and the bound on the norm holds") {
  // I - A^T A = (I - D^2) - c (D k)(D k)^T with c = beta (tau - 2): for D < 1 its Schur complement is 1 - c sum k^2 alpha^2 /
  // (1 - alpha^2); with alpha_i = 1 and k_i != 0 its i-th diagonal entry is -c k_i^2. Weyl: |A|^2 <= alpha_max^2 + max(0, c) |D k|^2.
  int contracting = 0, expanding = 0, contracting_though_tau_is_outside = 0;
  over_transitions(8, [&](const Transition<Rational>& A) {
    const Matrix<Rational> dense = matrix_form(A);
    const bool truth = positive_semidefinite(norm_gap(dense, 1));
    CHECK(contracts(A) == truth);
    CHECK(positive_semidefinite(norm_gap(dense, squared_norm_bound(A))));
    (truth ? contracting : expanding)++;
    contracting_though_tau_is_outside += truth && A.beta * (tau(A) - 2) > 0;
  });
  CHECK(std::min(contracting, expanding) > draws / 10);
  CHECK(contracting_though_tau_is_outside > 0);
}

TEST_CASE("S9: radius <= |A| <= sqrt(alpha_max / alpha_min) radius, and norm and radius can be far apart") {
  // D^{1/2} A D^{-1/2} is symmetric, so A is similar to a matrix whose norm is the radius, by a matrix of that condition.
  over_transitions(9, [](const Transition<Rational>& A) {
    if (!invertible_decay(A)) return;
    const std::vector<Real> lambda = eigenvalues_in(widened(A), Real("1e-45"));
    const Real radius = std::max<Real>(abs(lambda.front()), abs(lambda.back()));
    const Real square = squared_singular_values_in(matrix_form(widened(A)), Real("1e-45")).front();
    const Real slack = 1 + Real("1e-40"); // fifty digits, a few thousand roundings
    CHECK(radius * radius <= square * slack + Real("1e-40"));
    CHECK(square <= Real(squared_norm_over_radius_bound(A)) * radius * radius * slack + Real("1e-40"));
  });
  // tau = 1, alpha = (1, e), k orthogonal to (sqrt e, sqrt(1 - e)): the ratio is 1 / (2 sqrt e) to first order
  const double e = 1e-4;
  const Transition<double> A{{1, e}, {std::sqrt(1 - e), -std::sqrt(e)}, 1};
  CHECK(singular_values(A).front() / spectral_radius(A) == Approx(0.5 / std::sqrt(e)).epsilon(2 * e));
}

TEST_CASE("S10: norms multiply along a sequence, and spectral radii do not") {
  // Submultiplicativity of the norm with S7. The counterexample: two transitions of radius below 1, a product above.
  std::mt19937_64 bits(10);
  for (int draw = 0; draw < 60; ++draw) {
    std::vector<Transition<Rational>> sequence;
    Matrix<Rational> product = identity<Rational>(3);
    for (int t = 0; t < 4; ++t) {
      sequence.push_back(random_transition<Rational>(bits, 3));
      product = matrix_form(sequence.back()) * product;
    }
    const Rational bound = product_norm_bound(sequence);
    CHECK(positive_semidefinite(norm_gap(product, bound * bound)));
  }
  const Rational half(1, 2);
  const Transition<Rational> one{{Rational(1, 8), 1}, {1, 1}, 3 * half}, other{{1, Rational(1, 4)}, {half, 1}, 5 * half};
  for (const auto& A : {one, other}) { // no eigenvalue at or beyond -1 and 1
    CHECK(signs_of(pencil(A, -1)).positive == 2);
    CHECK(signs_of(pencil(A, 1)).negative == 2);
  }
  const std::vector<Rational> c = characteristic_polynomial(matrix_form(one) * matrix_form(other));
  CHECK(c[0] + c[1] + c[2] < 0); // det(1 - A B) < 0: an eigenvalue above 1
  CHECK(product_norm_bound<Rational>({one, other}) > 1);
}

TEST_CASE("S11: energy, readback and what is orthogonal to the key, exactly, step by step") {
  // Expand |D s - beta k (k^T D s)|^2; multiply the recurrence by k^T, or by w^T with w^T k = 0.
  std::mt19937_64 bits(11);
  over_transitions(11, [&](const Transition<Rational>& A) {
    const auto K = static_cast<std::int64_t>(A.k.size());
    Matrix<Rational> s(K, 1), w(K, 1), k(K, 1);
    for (std::int64_t i = 0; i < K; ++i) {
      s(i, 0) = static_cast<int>(bits() % 33) - 16;
      k(i, 0) = A.k[static_cast<std::size_t>(i)];
    }
    if (K >= 2) w(0, 0) = k(1, 0), w(1, 0) = -k(0, 0);
    const Rational v = Rational(static_cast<int>(bits() % 65) - 32, 8);
    const Matrix<Rational> moved = matrix_form(A) * s, next = moved + scaled(A.beta * v, k);
    CHECK((transposed(moved) * moved)(0, 0) == squared_norm_after(A, s.element));
    CHECK((transposed(k) * next)(0, 0) == readback_after(A, s.element, v));
    for (std::int64_t i = 0; i < K; ++i) s(i, 0) *= A.alpha[static_cast<std::size_t>(i)];
    CHECK((transposed(w) * next)(0, 0) == (transposed(w) * s)(0, 0));
  });
}
