#pragma once
// Bound on the error of solving (I + L) X = B, L strictly lower triangular, whatever the algorithm: derived in
// proved_solve.cpp. And the arithmetic of bounds: what is not known is infinite.

#include "../cases/portable_math.hpp"
#include "bound_matrix.hpp"
#include "proved_units.hpp"

#include <cmath>
#include <cstdint>
#include <vector>

namespace kdacheck {

/// Not above 2^100, and a number: else infinite. What errs by more may overflow in between: every sum's bound holds at
/// least 2^-21 of its terms, so that no term exceeds 2^121. A NaN (infinity times nothing) stands for what is not known.
inline double sane(double x) { return x <= 0x1p100 ? x : std::numeric_limits<double>::infinity(); }

/// e^x - 1 for x >= 0, or a little more: x + x^2 holds up to 1.79.
inline double grown(double x) { return x <= 1 ? x + x * x : portable::expm1(x); }

inline double norm_of(const double* x, std::int64_t n) {
  double sum = 0;
  for (std::int64_t c = 0; c < n; ++c) sum += x[c] * x[c];
  return std::sqrt(sum);
}

class SolveBound {
public:
  /// Of L [n,n], and the largest error of each of its entries. The units must outlive the calls of solve.
  /// `transposed`: for solve_transposed as well, whose sums run the other way.
  void enter(const ProvedUnits&, std::int64_t n, const BoundMatrix& L, const BoundMatrix& L_error, bool transposed = false);

  /// Largest errors of the solution, rounded to an operand, for right-hand sides of at most `size` known within `error`;
  /// `solution` bounds the exact solution. All are [n,width].
  void solve(std::int64_t width, const BoundMatrix& size, const BoundMatrix& error, const BoundMatrix& solution, BoundMatrix& into) const;

  /// The same of (I + L)^T X = B.
  void solve_transposed(std::int64_t width, const BoundMatrix& size, const BoundMatrix& error, const BoundMatrix& solution,
                        BoundMatrix& into) const;

  /// |T|, and the largest error of T^ as an operand, that of a sum of n products with it included. [n,n]
  const BoundMatrix& inverse_size() const { return of_right_; }
  BoundMatrix inverse_error() const;

private:
  /// Whether a solve knows no numbers below 2^-24: fp16.
  bool small() const { return units_->solve.flush > 0x1p-100; }
  /// What that adds to the residual, in proportion to T^ (`residual` [n,n]) and apart from it.
  void lose_small(const BoundMatrix& near_blocks, bool transposed, BoundMatrix& residual);
  /// And so to T^ and solutions: `all` is Y, `blocks` X_D.
  void bound_small(const BoundMatrix& N, const BoundMatrix& blocks, BoundMatrix& all);
  void keep_small(std::int64_t width, bool back, const BoundMatrix& solution, BoundMatrix& into) const;
  /// A solution's rounding to an operand.
  void round(std::int64_t width, bool back, const BoundMatrix& solution, BoundMatrix& into) const;

  const ProvedUnits* units_ = nullptr;
  std::int64_t n_ = 0;
  BoundMatrix of_right_, of_triangle_, of_solve_;    // [n,n] |T|; X dL; (Q + (1 + u)(1 + g) - 1) Y + flush
  BoundMatrix of_triangle_back_;                     // [n,n] dL X
  BoundMatrix near_, apart_;                         // [n,n] N; F, of fp16
  std::vector<double> lost_by_row_, lost_by_column_; // [n] what fp16 takes from a solution, and from a transposed one
};

} // namespace kdacheck
