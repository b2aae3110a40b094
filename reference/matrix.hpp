#pragma once
// Small dense matrices in any number type, for derivations that are written in matrices.

#include "token.hpp"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace kdacheck {

/// Row-major.
template <Number N> struct Matrix {
  std::int64_t rows = 0, columns = 0;
  std::vector<N> element;

  Matrix() = default;
  Matrix(std::int64_t r, std::int64_t c) : rows(r), columns(c), element(static_cast<std::size_t>(r * c), N(0.0)) {}
  N& operator()(std::int64_t i, std::int64_t j) { return element[static_cast<std::size_t>(i * columns + j)]; }
  const N& operator()(std::int64_t i, std::int64_t j) const { return element[static_cast<std::size_t>(i * columns + j)]; }
};

/// The r x c matrix whose entries are entry(i, j).
template <Number N> Matrix<N> matrix_of(std::int64_t r, std::int64_t c, auto&& entry) {
  Matrix<N> result(r, c);
  for (std::int64_t i = 0; i < r; ++i)
    for (std::int64_t j = 0; j < c; ++j) result(i, j) = entry(i, j);
  return result;
}

template <Number N> Matrix<N> identity(std::int64_t n) {
  return matrix_of<N>(n, n, [](std::int64_t i, std::int64_t j) { return N(i == j ? 1.0 : 0.0); });
}

template <Number N> Matrix<N> transposed(const Matrix<N>& A) {
  return matrix_of<N>(A.columns, A.rows, [&](std::int64_t i, std::int64_t j) { return A(j, i); });
}

template <Number N> Matrix<N> operator*(const Matrix<N>& A, const Matrix<N>& B) {
  return matrix_of<N>(A.rows, B.columns, [&](std::int64_t i, std::int64_t j) {
    N sum(0.0);
    for (std::int64_t l = 0; l < A.columns; ++l) sum = sum + A(i, l) * B(l, j);
    return sum;
  });
}

template <Number N> Matrix<N> operator+(const Matrix<N>& A, const Matrix<N>& B) {
  return matrix_of<N>(A.rows, A.columns, [&](std::int64_t i, std::int64_t j) { return N(A(i, j) + B(i, j)); });
}

template <Number N> Matrix<N> operator-(const Matrix<N>& A, const Matrix<N>& B) {
  return matrix_of<N>(A.rows, A.columns, [&](std::int64_t i, std::int64_t j) { return N(A(i, j) - B(i, j)); });
}

/// (I + L)^{-1} for a strictly lower triangular L, by forward substitution.
template <Number N> Matrix<N> unit_lower_inverse(const Matrix<N>& L) {
  Matrix<N> T = identity<N>(L.rows);
  for (std::int64_t i = 0; i < L.rows; ++i)
    for (std::int64_t j = 0; j < i; ++j)
      for (std::int64_t l = j; l < i; ++l) T(i, j) = T(i, j) - L(i, l) * T(l, j);
  return T;
}

} // namespace kdacheck
