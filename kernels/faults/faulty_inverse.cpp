#include "faulty_inverse.hpp"

namespace kdacheck::faults {
namespace {

using Matrix = std::vector<float>; // [n,n]

Matrix product(const Matrix& left, const Matrix& right, std::size_t n, Format stored) {
  Matrix result(n * n, 0);
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j < n; ++j) {
      float sum = 0;
      for (std::size_t c = 0; c < n; ++c) sum += left[i * n + c] * right[c * n + j];
      result[i * n + j] = round_to(stored, sum);
    }
  return result;
}

void substitute(Matrix& L, std::size_t n, Format stored) {
  Matrix T(n * n, 0);
  for (std::size_t j = 0; j < n; ++j) {
    T[j * n + j] = 1;
    for (std::size_t i = j + 1; i < n; ++i) {
      float sum = 0;
      for (std::size_t c = j; c < i; ++c) sum -= L[i * n + c] * T[c * n + j];
      T[i * n + j] = round_to(stored, sum);
    }
  }
  L = T;
}

/// (I - L)(I + L^2)(I + L^4) ..., every product stored in a format.
void neumann(Matrix& L, std::size_t n, Format stored) {
  for (float& x : L) x = round_to(stored, x);
  Matrix T(n * n);
  for (std::size_t i = 0; i < n * n; ++i) T[i] = -L[i];
  for (std::size_t i = 0; i < n; ++i) T[i * n + i] = 1;
  Matrix power = product(L, L, n, stored);
  for (std::size_t reach = 2; reach < n; reach *= 2) {
    Matrix factor = power;
    for (std::size_t i = 0; i < n; ++i) factor[i * n + i] += 1;
    T = product(T, factor, n, stored);
    power = product(power, power, n, stored);
  }
  L = T;
}

/// I - L, or I - L + L^2.
void truncated_series(Matrix& L, std::size_t n, bool second_order) {
  const Matrix square = product(L, L, n, Format::fp32);
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j < n; ++j) L[i * n + j] = (i == j ? 1.0f : -L[i * n + j]) + (second_order ? square[i * n + j] : 0.0f);
}

} // namespace

void invert(std::vector<float>& matrix, std::int64_t size, std::int64_t row, Fault fault, Format solve) {
  const auto n = static_cast<std::size_t>(size), stride = static_cast<std::size_t>(row);
  Matrix L(n * n, 0);
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j < (fault == Fault::mask_by_multiplication ? n : i); ++j) L[i * n + j] = matrix[i * stride + j];
  switch (fault) {
  case Fault::neumann_fp32: neumann(L, n, Format::fp32); break;
  case Fault::neumann_bf16: neumann(L, n, Format::bf16); break;
  case Fault::neumann_fp16: neumann(L, n, Format::fp16); break;
  case Fault::first_order_inverse: truncated_series(L, n, false); break;
  case Fault::second_order_inverse: truncated_series(L, n, true); break;
  default: substitute(L, n, solve);
  }
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j < n; ++j) matrix[i * stride + j] = L[i * n + j];
}

} // namespace kdacheck::faults
