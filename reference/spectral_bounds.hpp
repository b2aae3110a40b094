#pragma once
// What is proved about one transition A = (I - beta k k^T) Diag(alpha), in any ordered field (exact rationals included).
//
// Notation: D = Diag(alpha), P = I - beta k k^T, tau = beta |k|^2, alpha_(1) >= ... >= alpha_(n) sorted down. alpha lies
// in [0,1] for S8 and is >= 0 elsewhere; beta is any real number. Always the measured |k|, never the nominal 1: bf16
// copies of unit keys have |k|^2 - 1 of either sign, and beta = 2 then makes tau > 2, which expands.
// The proofs stand beside the tests (tests/spectral_statements.cpp).

#include "token.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace kdacheck {

template <Number N> struct Transition {
  std::vector<N> alpha, k; ///< [K]
  N beta{0.0};
};

/// A closed interval.
template <Number N> struct Interval {
  N low, high;
  bool contains(const N& x) const { return !(x < low) && !(high < x); }
};

/// beta |k|^2
template <Number N> N tau(const Transition<N>& A) {
  N sum(0.0);
  for (const N& x : A.k) sum = sum + x * x;
  return A.beta * sum;
}

namespace spectral_detail {

template <Number N> N magnitude(const N& x) { return x < N(0.0) ? N(-x) : x; }
template <Number N> N larger(const N& x, const N& y) { return x < y ? y : x; }
template <Number N> N smaller(const N& x, const N& y) { return y < x ? y : x; }

template <Number N> std::vector<N> descending(std::vector<N> x) {
  std::sort(x.begin(), x.end(), [](const N& a, const N& b) { return b < a; });
  return x;
}

/// sum_i k_i^2 f(alpha_i)
template <Number N> N key_sum(const Transition<N>& A, auto&& f) {
  N sum(0.0);
  for (std::size_t i = 0; i < A.k.size(); ++i) sum = sum + A.k[i] * A.k[i] * f(A.alpha[i]);
  return sum;
}

/// |P| = max(1, |1 - tau|), or |1 - tau| alone for a single channel's worth of key; the former bounds both.
template <Number N> N projection_norm(const Transition<N>& A) { return larger(N(1.0), magnitude(N(N(1.0) - tau(A)))); }

} // namespace spectral_detail

/// Means of alpha under the weights k_i^2 / |k|^2; k must not be zero. The harmonic mean is 0 where alpha is 0 on the key.
template <Number N> N arithmetic_mean_on_key(const Transition<N>& A) {
  const N weight = spectral_detail::key_sum(A, [](const N&) { return N(1.0); });
  return spectral_detail::key_sum(A, [](const N& a) { return a; }) / weight;
}
template <Number N> N harmonic_mean_on_key(const Transition<N>& A) {
  N weight(0.0), sum(0.0);
  for (std::size_t i = 0; i < A.k.size(); ++i) {
    if (A.k[i] == N(0.0)) continue;
    if (!(N(0.0) < A.alpha[i])) return N(0.0);
    weight = weight + A.k[i] * A.k[i];
    sum = sum + A.k[i] * A.k[i] / A.alpha[i];
  }
  return weight / sum;
}

/// S5. Where the smallest eigenvalue lies. Sharp when alpha is constant on the support of k and tau > 1.
template <Number N> Interval<N> smallest_eigenvalue(const Transition<N>& A) {
  using namespace spectral_detail;
  const N t = tau(A);
  const std::vector<N> alpha = descending(A.alpha);
  if (t == N(0.0)) return {alpha.back(), alpha.back()};
  if (t < N(0.0)) return {alpha.back(), alpha.size() > 1 ? alpha[alpha.size() - 2] : N(alpha[0] * (N(1.0) - t))};
  const N rest = N(1.0) - t;
  if (N(1.0) < t) return {N(rest * arithmetic_mean_on_key(A)), N(rest * harmonic_mean_on_key(A))};
  return {N(rest * alpha.back()), smaller(alpha.back(), N(rest * harmonic_mean_on_key(A)))};
}

/// S2 with S5: one interval per eigenvalue, largest first. All eigenvalues are real (S1).
template <Number N> std::vector<Interval<N>> eigenvalue_intervals(const Transition<N>& A) {
  using namespace spectral_detail;
  const std::vector<N> alpha = descending(A.alpha);
  const std::size_t n = alpha.size();
  std::vector<Interval<N>> result;
  for (std::size_t i = 0; i < n; ++i) {
    if (A.beta < N(0.0)) // upwards: the largest moves by at most the trace's gain
      result.push_back({alpha[i], i > 0 ? alpha[i - 1] : N(alpha[0] - A.beta * key_sum(A, [](const N& a) { return a; }))});
    else if (i + 1 < n)
      result.push_back({alpha[i + 1], alpha[i]});
    else
      result.push_back(smallest_eigenvalue(A));
  }
  return result;
}

/// S3. det A = (1 - tau) prod alpha_i
template <Number N> N determinant(const Transition<N>& A) {
  N product = N(1.0) - tau(A);
  for (const N& a : A.alpha) product = product * a;
  return product;
}

/// S3. tr A = sum_i alpha_i (1 - beta k_i^2)
template <Number N> N trace(const Transition<N>& A) {
  N sum(0.0);
  for (std::size_t i = 0; i < A.k.size(); ++i) sum = sum + A.alpha[i] * (N(1.0) - A.beta * A.k[i] * A.k[i]);
  return sum;
}

/// S3. ln |det| of A_T ... A_1, in log space because the determinant itself loses all digits within some ten tokens:
/// sum_t ln |1 - tau_t| + sum_t sum_i ln alpha_ti. -inf if a factor is 0.
template <Number N> N log_absolute_determinant(const std::vector<Transition<N>>& sequence) {
  using std::log;
  N sum(0.0);
  for (const auto& A : sequence) {
    sum = sum + log(spectral_detail::magnitude(N(N(1.0) - tau(A))));
    for (const N& a : A.alpha) sum = sum + log(a);
  }
  return sum;
}

/// S4. How many eigenvalues are negative (0 or 1), and how many are zero. Channels with alpha = 0 are zero eigenvalues
/// and take no part in tau.
struct Inertia {
  int negative = 0, zero = 0;
  bool operator==(const Inertia&) const = default;
};
template <Number N> Inertia inertia(const Transition<N>& A) {
  Inertia result;
  const N kept = A.beta * spectral_detail::key_sum(A, [](const N& a) { return N(N(0.0) < a ? 1.0 : 0.0); });
  for (const N& a : A.alpha) result.zero += !(N(0.0) < a);
  result.negative = N(1.0) < kept;
  result.zero += kept == N(1.0);
  return result;
}

/// S6, S7. Bound on the spectral radius and on |A|_2: alpha_max max(1, |1 - tau|).
template <Number N> N norm_bound(const Transition<N>& A) {
  return *std::max_element(A.alpha.begin(), A.alpha.end()) * spectral_detail::projection_norm(A);
}

/// S7. One interval per singular value, largest first: below alpha for tau in [0,2], above it otherwise.
template <Number N> std::vector<Interval<N>> singular_value_intervals(const Transition<N>& A) {
  using namespace spectral_detail;
  const std::vector<N> alpha = descending(A.alpha);
  const std::size_t n = alpha.size();
  const N t = tau(A);
  const bool below = !(t < N(0.0)) && !(N(2.0) < t);
  std::vector<Interval<N>> result;
  for (std::size_t i = 0; i < n; ++i) {
    if (below)
      result.push_back({i + 1 < n ? alpha[i + 1] : N(alpha[i] * smaller(N(1.0), magnitude(N(N(1.0) - t)))), alpha[i]});
    else
      result.push_back({alpha[i], i > 0 ? alpha[i - 1] : norm_bound(A)});
  }
  return result;
}

/// S8. Exactly whether |A|_2 <= 1, for alpha in [0,1]; in rounded arithmetic up to its roundings where |A| is 1 within them.
template <Number N> bool contracts(const Transition<N>& A) {
  const N c = A.beta * (tau(A) - N(2.0));
  if (!(N(0.0) < c)) return true;
  N sum(0.0);
  for (std::size_t i = 0; i < A.k.size(); ++i) {
    const N square = A.alpha[i] * A.alpha[i];
    if (A.k[i] == N(0.0)) continue;
    if (!(square < N(1.0))) return false;
    sum = sum + A.k[i] * A.k[i] * square / (N(1.0) - square);
  }
  return !(N(1.0) < c * sum);
}

/// S8. Upper bound on |A|_2^2: alpha_max^2 + max(0, beta (tau - 2)) |D k|^2. Neither this nor norm_bound is always less.
template <Number N> N squared_norm_bound(const Transition<N>& A) {
  using namespace spectral_detail;
  const N most = *std::max_element(A.alpha.begin(), A.alpha.end());
  return most * most + larger(N(0.0), N(A.beta * (tau(A) - N(2.0)))) * key_sum(A, [](const N& a) { return N(a * a); });
}

/// S9. |A|_2^2 is at most this times the square of the spectral radius: alpha_max / alpha_min, alpha > 0.
template <Number N> N squared_norm_over_radius_bound(const Transition<N>& A) {
  return *std::max_element(A.alpha.begin(), A.alpha.end()) / *std::min_element(A.alpha.begin(), A.alpha.end());
}

/// S10. Bound on |A_T ... A_1|_2. (Spectral radii do not multiply.)
template <Number N> N product_norm_bound(const std::vector<Transition<N>>& sequence) {
  N product(1.0);
  for (const auto& A : sequence) product = product * norm_bound(A);
  return product;
}

/// S7, S8. Bound on |S_t|_2 or |S_t|_F after S_t = A S_{t-1} + beta k v^T, from the norm before and |v|: the lesser norm
/// bound of A times the former, plus |beta| |k| |v|.
template <Number N> N state_norm_bound(const Transition<N>& A, const N& norm_before, const N& norm_of_v) {
  using std::sqrt;
  using namespace spectral_detail;
  const N growth = smaller(norm_bound(A), N(sqrt(squared_norm_bound(A))));
  return growth * norm_before + magnitude(A.beta) * sqrt(key_sum(A, [](const N&) { return N(1.0); })) * norm_of_v;
}

/// S11. |A s|^2 = |D s|^2 - beta (2 - tau) (k^T D s)^2, without forming A s.
template <Number N> N squared_norm_after(const Transition<N>& A, const std::vector<N>& s) {
  N square(0.0), along(0.0);
  for (std::size_t i = 0; i < s.size(); ++i) {
    const N kept = A.alpha[i] * s[i];
    square = square + kept * kept;
    along = along + A.k[i] * kept;
  }
  return square - A.beta * (N(2.0) - tau(A)) * along * along;
}

/// S11. k^T (A s + beta k v) = (1 - tau) k^T D s + tau v: what the key reads back after a write of v.
template <Number N> N readback_after(const Transition<N>& A, const std::vector<N>& s, const N& v) {
  N along(0.0);
  for (std::size_t i = 0; i < s.size(); ++i) along = along + A.k[i] * A.alpha[i] * s[i];
  return (N(1.0) - tau(A)) * along + tau(A) * v;
}

/// A heuristic monitor in use elsewhere: max(alpha) (1 + beta |k|^2) > threshold. It is the triangle inequality for |P|
/// taken for the truth max(1, |1 - tau|): it warns where nothing grows, and for beta < 0 it is silent where A expands.
template <Number N> bool heuristic_warns(const Transition<N>& A, const N& threshold) {
  return threshold < *std::max_element(A.alpha.begin(), A.alpha.end()) * (N(1.0) + tau(A));
}

/// D - a b^T of the general form.
template <Number N> struct DplrTransition {
  std::vector<N> d, a, b; ///< [K]
};

/// KDA as a member of the general form: a = beta k, b = k (.) alpha.
template <Number N> DplrTransition<N> as_dplr(const Transition<N>& A) {
  DplrTransition<N> result{A.alpha, A.k, A.k};
  for (std::size_t i = 0; i < A.k.size(); ++i) {
    result.a[i] = A.beta * A.k[i];
    result.b[i] = A.alpha[i] * A.k[i];
  }
  return result;
}

/// det (D - a b^T) = prod d_i - sum_i a_i b_i prod_{j != i} d_j; no division.
template <Number N> N determinant(const DplrTransition<N>& A) {
  N kept(1.0), removed(0.0); // over the channels so far
  for (std::size_t i = 0; i < A.d.size(); ++i) {
    removed = removed * A.d[i] + A.a[i] * A.b[i] * kept;
    kept = kept * A.d[i];
  }
  return kept - removed;
}

/// tr (D - a b^T)
template <Number N> N trace(const DplrTransition<N>& A) {
  N sum(0.0);
  for (std::size_t i = 0; i < A.d.size(); ++i) sum = sum + A.d[i] - A.a[i] * A.b[i];
  return sum;
}

/// Bound on |D - a b^T|_2: max |d_i| + |a| |b|. Contraction of the general form cannot be concluded from its spectrum; it
/// has to be measured, by this or by singular values.
template <Number N> N norm_bound(const DplrTransition<N>& A) {
  using std::sqrt;
  N most(0.0), a(0.0), b(0.0);
  for (std::size_t i = 0; i < A.d.size(); ++i) {
    most = spectral_detail::larger(most, spectral_detail::magnitude(A.d[i]));
    a = a + A.a[i] * A.a[i];
    b = b + A.b[i] * A.b[i];
  }
  return most + sqrt(N(a * b));
}

/// Whether all products a_i b_i have one sign: then D - a b^T is diagonally similar to a symmetric matrix (if none is
/// zero; by continuity also otherwise), its spectrum is real and interlaces d. In general neither holds.
template <Number N> bool one_signed(const DplrTransition<N>& A) {
  bool negative = false, positive = false;
  for (std::size_t i = 0; i < A.a.size(); ++i) {
    const N product = A.a[i] * A.b[i];
    negative = negative || product < N(0.0);
    positive = positive || N(0.0) < product;
  }
  return !(negative && positive);
}

} // namespace kdacheck
