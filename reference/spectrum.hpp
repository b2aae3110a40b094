#pragma once
// Spectra of transitions, computed. Proved bounds are in spectral_bounds.hpp; these are the numbers they must hold for.

#include "matrix.hpp"
#include "spectral_bounds.hpp"

#include <cmath>
#include <complex>
#include <cstdint>
#include <vector>

namespace kdacheck {

/// Eigenvalues of a KDA transition, largest first, from the symmetric matrix D^{1/2} P D^{1/2} (similar to P D).
/// Error: backward stable, a small multiple of K 2^-53 |A|.
std::vector<double> eigenvalues(const Transition<double>&);

/// Eigenvalues of D - a b^T, largest real part first. They may be complex, and ill-conditioned where it is far from normal.
std::vector<std::complex<double>> eigenvalues(const DplrTransition<double>&);

/// Singular values, largest first. Error as for eigenvalues.
std::vector<double> singular_values(const Transition<double>&);
std::vector<double> singular_values(const DplrTransition<double>&);

/// The same of any matrix, and the eigenvalues of a symmetric one (its lower triangle counts), largest first.
std::vector<double> singular_values(const Matrix<double>&);
std::vector<double> symmetric_eigenvalues(const Matrix<double>&);

/// Largest |eigenvalue|.
double spectral_radius(const Transition<double>&);
double spectral_radius(const DplrTransition<double>&);

/// The transition of a token under either rule.
template <Number N> Transition<N> transition_of(const Token<N>& t) { return {t.alpha, t.k, t.beta}; }
template <Number N> DplrTransition<N> dplr_transition_of(const Token<N>& t) { return {t.alpha, t.a, t.b}; }

/// (I - beta k k^T) Diag(alpha), [K,K].
template <Number N> Matrix<N> matrix_form(const Transition<N>& A) {
  const auto K = static_cast<std::int64_t>(A.k.size());
  const auto k = [&](std::int64_t i) { return A.k[static_cast<std::size_t>(i)]; };
  return matrix_of<N>(K, K, [&](std::int64_t i, std::int64_t j) {
    return N((N(i == j ? 1.0 : 0.0) - A.beta * k(i) * k(j)) * A.alpha[static_cast<std::size_t>(j)]);
  });
}

/// D - a b^T, [K,K].
template <Number N> Matrix<N> matrix_form(const DplrTransition<N>& A) {
  const auto K = static_cast<std::int64_t>(A.d.size());
  return matrix_of<N>(K, K, [&](std::int64_t i, std::int64_t j) {
    return N((i == j ? A.d[static_cast<std::size_t>(i)] : N(0.0)) - A.a[static_cast<std::size_t>(i)] * A.b[static_cast<std::size_t>(j)]);
  });
}

/// Eigenvalues of a symmetric matrix, largest first, by cyclic Jacobi rotations in any number type with a sqrt: slow,
/// simple, and accurate to a few roundings of the norm. Sweeps until the off-diagonal part is below `tolerance` times the norm.
template <Number N> std::vector<N> symmetric_eigenvalues(Matrix<N> M, const N& tolerance) {
  using std::sqrt;
  const std::int64_t n = M.rows;
  const auto square_sum = [&](bool off_diagonal_only) {
    N sum(0.0);
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t j = 0; j < n; ++j)
        if (i != j || !off_diagonal_only) sum = sum + M(i, j) * M(i, j);
    return sum;
  };
  const N enough = tolerance * tolerance * square_sum(false);
  while (enough < square_sum(true)) {
    for (std::int64_t p = 0; p < n; ++p)
      for (std::int64_t q = p + 1; q < n; ++q) {
        if (M(p, q) == N(0.0)) continue;
        // the rotation that clears M_pq: t = tan of the smaller angle
        const N ratio = (M(q, q) - M(p, p)) / (M(p, q) + M(p, q));
        const N root = sqrt(ratio * ratio + N(1.0));
        const N t = ratio < N(0.0) ? N(N(-1.0) / (root - ratio)) : N(N(1.0) / (root + ratio));
        const N c = N(1.0) / sqrt(t * t + N(1.0)), s = t * c;
        for (std::int64_t i = 0; i < n; ++i) {
          const N x = M(i, p), y = M(i, q);
          M(i, p) = c * x - s * y;
          M(i, q) = s * x + c * y;
        }
        for (std::int64_t i = 0; i < n; ++i) {
          const N x = M(p, i), y = M(q, i);
          M(p, i) = c * x - s * y;
          M(q, i) = s * x + c * y;
        }
      }
  }
  std::vector<N> result;
  for (std::int64_t i = 0; i < n; ++i) result.push_back(M(i, i));
  return spectral_detail::descending(std::move(result));
}

/// Eigenvalues of a KDA transition in any number type, largest first.
template <Number N> std::vector<N> eigenvalues_in(const Transition<N>& A, const N& tolerance) {
  using std::sqrt;
  const auto K = static_cast<std::int64_t>(A.k.size());
  const auto u = [&](std::int64_t i) { return N(sqrt(A.alpha[static_cast<std::size_t>(i)]) * A.k[static_cast<std::size_t>(i)]); };
  return symmetric_eigenvalues(matrix_of<N>(K, K,
                                            [&](std::int64_t i, std::int64_t j) {
                                              return N((i == j ? A.alpha[static_cast<std::size_t>(i)] : N(0.0)) - A.beta * u(i) * u(j));
                                            }),
                               tolerance);
}

/// Squared singular values of any matrix in any number type, largest first.
template <Number N> std::vector<N> squared_singular_values_in(const Matrix<N>& A, const N& tolerance) {
  return symmetric_eigenvalues(transposed(A) * A, tolerance);
}

} // namespace kdacheck
