#pragma once
// Exact decisions about rational matrices: no tolerance, so a proved statement either holds or the test fails.

#include "../matrix.hpp"

#include <boost/multiprecision/cpp_int.hpp>

#include <utility>

namespace kdacheck {

using Rational = boost::multiprecision::number<boost::multiprecision::cpp_rational_backend, boost::multiprecision::et_off>;

/// Numbers of negative, zero and positive eigenvalues.
struct Signs {
  int negative = 0, zero = 0, positive = 0;
};

/// Inertia of a symmetric matrix by congruence (Sylvester): eliminates symmetrically with pivots from the diagonal; where
/// the whole remaining diagonal is zero, adding row and column j to i makes 2 M_ij a pivot.
inline Signs signs_of(Matrix<Rational> M) {
  Signs signs;
  const std::int64_t n = M.rows;
  const auto add_line = [&](std::int64_t from, std::int64_t to, const Rational& factor) {
    for (std::int64_t l = 0; l < n; ++l) M(to, l) += factor * M(from, l);
    for (std::int64_t l = 0; l < n; ++l) M(l, to) += factor * M(l, from);
  };
  for (std::int64_t step = 0; step < n; ++step) {
    std::int64_t pivot = step;
    while (pivot < n && M(pivot, pivot) == 0) ++pivot;
    for (std::int64_t i = step; pivot == n && i < n; ++i)
      for (std::int64_t j = i + 1; j < n; ++j)
        if (M(i, j) != 0) {
          add_line(j, i, 1);
          pivot = i;
          break;
        }
    if (pivot == n) { // nothing but zeros left
      signs.zero += static_cast<int>(n - step);
      return signs;
    }
    for (std::int64_t l = 0; l < n; ++l) std::swap(M(step, l), M(pivot, l));
    for (std::int64_t l = 0; l < n; ++l) std::swap(M(l, step), M(l, pivot));
    (M(step, step) < 0 ? signs.negative : signs.positive)++;
    for (std::int64_t i = step + 1; i < n; ++i)
      if (M(i, step) != 0) add_line(step, i, -M(i, step) / M(step, step));
  }
  return signs;
}

inline bool positive_semidefinite(const Matrix<Rational>& M) { return signs_of(M).negative == 0; }

/// By elimination.
inline Rational determinant_of(Matrix<Rational> M) {
  Rational result = 1;
  const std::int64_t n = M.rows;
  for (std::int64_t step = 0; step < n; ++step) {
    std::int64_t pivot = step;
    while (pivot < n && M(pivot, step) == 0) ++pivot;
    if (pivot == n) return 0;
    if (pivot != step) result = -result;
    for (std::int64_t l = 0; l < n; ++l) std::swap(M(step, l), M(pivot, l));
    result *= M(step, step);
    for (std::int64_t i = step + 1; i < n; ++i) {
      const Rational factor = M(i, step) / M(step, step);
      for (std::int64_t l = step; l < n; ++l) M(i, l) -= factor * M(step, l);
    }
  }
  return result;
}

/// x M
inline Matrix<Rational> scaled(const Rational& x, Matrix<Rational> M) {
  for (Rational& element : M.element) element *= x;
  return M;
}

/// Coefficients c_0 ... c_n of det(x I - A) = sum c_i x^i (Faddeev and LeVerrier).
inline std::vector<Rational> characteristic_polynomial(const Matrix<Rational>& A) {
  const std::int64_t n = A.rows;
  std::vector<Rational> c(static_cast<std::size_t>(n + 1), Rational(0));
  c[static_cast<std::size_t>(n)] = 1;
  Matrix<Rational> M(n, n);
  for (std::int64_t m = 1; m <= n; ++m) {
    M = A * M + scaled(c[static_cast<std::size_t>(n - m + 1)], identity<Rational>(n));
    const Matrix<Rational> AM = A * M;
    Rational trace = 0;
    for (std::int64_t i = 0; i < n; ++i) trace += AM(i, i);
    c[static_cast<std::size_t>(n - m)] = -trace / m;
  }
  return c;
}

} // namespace kdacheck
