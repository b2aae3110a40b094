#pragma once
// A layer in mixed precision: operands of matrix products, and tensors that one operation hands to the next, are rounded to
// fewer bits; everything between is fp32. An oracle instantiated with PerturbedTo<p>, in a file that includes this one, finds
// these overloads and errs so. (8 bits: bf16 as autocast uses it. Both are the contract keys `operands` and `output` of
// a kernel, carried over to the layer around it.) What a kernel of KDA may keep in fp32 but for a tf32 product, its triangular
// solve, is not rounded here: the budget is the smaller for it.
//
// And a layer whose softplus is the logarithm of a rounded sum.

#include "../../reference/chunk_algebra.hpp"
#include "../../reference/stored.hpp"
#include "perturbed_number.hpp"

#include <cmath>
#include <cstdint>
#include <numbers>
#include <utility>
#include <vector>

namespace kdacheck {

template <int bits> std::vector<PerturbedTo<bits>> stored(std::vector<PerturbedTo<bits>> x) {
  for (PerturbedTo<bits>& element : x) element = rounded(element);
  return x;
}

template <int bits> Matrix<PerturbedTo<bits>> stored(Matrix<PerturbedTo<bits>> x) {
  x.element = stored(std::move(x.element));
  return x;
}

template <int bits> Matrix<PerturbedTo<bits>> operator*(const Matrix<PerturbedTo<bits>>& A, const Matrix<PerturbedTo<bits>>& B) {
  const Matrix<PerturbedTo<bits>> a = stored(A), b = stored(B);
  return matrix_of<PerturbedTo<bits>>(a.rows, b.columns, [&](std::int64_t i, std::int64_t j) {
    PerturbedTo<bits> sum(0.0);
    for (std::int64_t l = 0; l < a.columns; ++l) sum = sum + a(i, l) * b(l, j);
    return sum;
  });
}

/// flash-linear-attention's softplus (fla/ops/utils/softplus.py): the sum 1 + e^x is rounded, and its logarithm is lg2.approx,
/// which may be wrong by 2^-22 where the sum is below 2 and by that part of itself above (PTX ISA). So a small decay keeps
/// few digits. From 20 on it is x.
template <int bits> PerturbedTo<bits, SoftplusBy::rounded_sum> softplus(const PerturbedTo<bits, SoftplusBy::rounded_sum>& x) {
  using N = PerturbedTo<bits, SoftplusBy::rounded_sum>;
  if (N(20.0) < x) return x;
  const N y = log(N(1.0) + exp(x));
  return absolutely_wrong(y, 0x1p-22 * std::fmax(std::numbers::ln2, static_cast<double>(y)));
}

/// Scores of a chunk: products of matrices as well, whose rows meet the decay before they are rounded.
template <int bits>
Matrix<PerturbedTo<bits>> scores(const Matrix<PerturbedTo<bits>>& x, const Matrix<PerturbedTo<bits>>& X, const Matrix<PerturbedTo<bits>>& y,
                                 const Matrix<PerturbedTo<bits>>& Y, std::int64_t least) {
  return matrix_of<PerturbedTo<bits>>(x.rows, y.rows, [&](std::int64_t i, std::int64_t j) {
    PerturbedTo<bits> sum(0.0);
    for (std::int64_t c = 0; c < x.columns && i - j >= least; ++c) sum = sum + rounded(x(i, c) * exp(X(i, c) - Y(j, c))) * y(j, c);
    return sum;
  });
}

} // namespace kdacheck
