// Inverse. T(L^) = (I + T dL)^{-1} T; T dL is strictly lower, so |T(L^)| <= X, X = |T| + |T| dL X by forward recursion: finite.
//   Covered are all algorithms whose T^ (or whose solution, if no T is formed) has a residual on either side
//     |(I + L^) T^ - I| <= E |T^|   or   |T^ (I + L^) - I| <= |T^| E,     E = g (N + 2 N_D X_D N_D),   N = I + |L^|,
//   N_D, X_D the diagonal blocks of 16 rows of N and X, g gamma of the solve. Substitution by rows or columns has g N alone
//   (Higham, theorem 8.5, section 14.2). Substitution by blocks that inverts the diagonal blocks first, for a block row
//   M^ = fl(sum L_ik T_k), T_i = -fl(T_ii M^): the residual is at most g sum |L_ik||T_k| + 2 g N_ii |T_ii| |M^|, and M^ = -(I + L)_ii T_i
//   up to second order, which gamma's spare terms hold; the first 16 rows need no N_D X_D N_D. Repeated squaring is not in this class: its
//   powers of L may be far larger than T. With Q = X E either side gives |T^| <= Y = (I - Q)^{-1} X and |T^ - T(L^)| <= Q Y, as X (I - E
//   X)^{-1} = (I - X E)^{-1} X. No sum for row i has more than i + 1 terms: row i of E has g of that many.
// Solve, T B for given B with dB. (T(L^) - T) B = -T(L^) dL T B, so that with P = |T| dB
//     d(TB) <= P + X dL (|TB| + P) + (Q + (1 + u)(1 + g_n) - 1) Y (|B| + dB) + flush, then one operand rounding.
// Transposed, (T(L^) - T)^T B = -T(L^)^T dL^T T^T B: dL X stands for X dL, and all matrices are transposed. A substitution that goes back
// without T, (I + L^ + F)^T x^ = b with |F| <= g N, gives |x^ - T(L^)^T b| <= (Q Y)^T |b| as above; its sum for row i has n - i terms, so
// that every row of E has g of n.

#include "proved_solve.hpp"

#include "../perturbed/chunk_factors.hpp"

#include <algorithm>

namespace kdacheck {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

} // namespace

void SolveBound::enter(const ProvedUnits& units, std::int64_t n, const BoundMatrix& L, const BoundMatrix& L_error, bool transposed) {
  units_ = &units, n_ = n;
  BoundMatrix inverse, step, larger, blocks, near, there; // |T| dL, X, X_D, N, products
  inverse.resize(n, n), of_right_.resize(n, n), step.resize(n, n), near.resize(n, n);
  for (std::int64_t i = 0; i < n; ++i) {
    add_rows(inverse[i], 0, i, inverse, [&](std::int64_t m) { return -L[i][m]; });
    inverse[i][i] = 1;
    for (std::int64_t j = 0; j < i; ++j) near[i][j] = std::abs(L[i][j]) + L_error[i][j];
    near[i][i] = 1;
    for (std::int64_t j = 0; j <= i; ++j) of_right_[i][j] = std::abs(inverse[i][j]);
  }
  product(of_right_, L_error, n, n, step, true);
  larger.resize(n, n);
  for (std::int64_t i = 0; i < n; ++i) {
    std::copy(of_right_[i], of_right_[i] + n, larger[i]);
    add_rows(larger[i], 0, i, larger, [&](std::int64_t m) { return step[i][m]; });
  }
  product(larger, L_error, n, n, of_triangle_, true); // X dL
  if (transposed) product(L_error, larger, n, n, of_triangle_back_, true);
  // N_D and X_D hold columns from the start of a row's block on
  BoundMatrix Q, near_blocks = near;
  blocks = larger;
  for (std::int64_t i = 0; i < n; ++i)
    for (BoundMatrix* m : {&blocks, &near_blocks}) std::fill((*m)[i], (*m)[i] + i / score_block * score_block, 0.0);
  product(near_blocks, blocks, n, n, there, true);
  product(there, near_blocks, n, n, Q, true);
  for (std::int64_t i = 0; i < n; ++i) {
    const double g = units.solve_gamma(transposed ? n : i + 1);
    const double of_blocks = i < score_block && !transposed ? 0 : 2; // no block row comes before the first
    for (std::int64_t j = 0; j <= i; ++j) near[i][j] = g * (near[i][j] + of_blocks * Q[i][j]);
  }
  product(larger, near, n, n, Q, true);
  // Y = X + Q Y, whose diagonal is divided through
  BoundMatrix all = larger;
  for (std::int64_t i = 0; i < n; ++i) {
    add_rows(all[i], 0, i, all, [&](std::int64_t m) { return Q[i][m]; });
    const double rest = 1 - Q[i][i];
    for (std::int64_t j = 0; j <= i; ++j) all[i][j] = rest > 0 ? sane(all[i][j] / rest) : infinity;
  }
  product(Q, all, n, n, of_solve_, true);
  const double used = (1 + units.operand.unit) * (1 + units.gamma(n)) - 1;
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j <= i; ++j)
      of_solve_[i][j] = sane(of_solve_[i][j] + used * all[i][j] + (all[i][j] <= units.operand.limit ? 2 * units.operand.flush : infinity));
}

void SolveBound::solve(std::int64_t width, const BoundMatrix& size, const BoundMatrix& error, const BoundMatrix& solution,
                       BoundMatrix& into) const {
  BoundMatrix passed, both;
  product(of_right_, error, n_, n_, passed, true);
  into.resize(n_, width);
  both.resize(n_, width);
  for (std::size_t at = 0; at < both.data.size(); ++at) both.data[at] = size.data[at] + error.data[at];
  for (std::int64_t i = 0; i < n_; ++i) add_rows(into[i], 0, i + 1, both, [&](std::int64_t m) { return of_solve_[i][m]; });
  for (std::size_t at = 0; at < both.data.size(); ++at) both.data[at] = solution.data[at] + passed.data[at];
  for (std::int64_t i = 0; i < n_; ++i) {
    add_rows(into[i], 0, i, both, [&](std::int64_t m) { return of_triangle_[i][m]; });
    for (std::int64_t j = 0; j < width; ++j) {
      const double before = into[i][j] + passed[i][j];
      into[i][j] = sane((before + units_->operand.error(solution[i][j] + before)) * ProvedUnits::up);
    }
  }
}

void SolveBound::solve_transposed(std::int64_t width, const BoundMatrix& size, const BoundMatrix& error, const BoundMatrix& solution,
                                  BoundMatrix& into) const {
  BoundMatrix passed, both;
  for (BoundMatrix* m : {&passed, &both, &into}) m->resize(n_, width);
  for (std::size_t at = 0; at < both.data.size(); ++at) both.data[at] = size.data[at] + error.data[at];
  for (std::int64_t i = 0; i < n_; ++i) {
    add_rows(passed[i], i, n_, error, [&](std::int64_t m) { return of_right_[m][i]; });
    add_rows(into[i], i, n_, both, [&](std::int64_t m) { return of_solve_[m][i]; });
  }
  for (std::size_t at = 0; at < both.data.size(); ++at) both.data[at] = solution.data[at] + passed.data[at];
  for (std::int64_t i = 0; i < n_; ++i) {
    add_rows(into[i], i + 1, n_, both, [&](std::int64_t m) { return of_triangle_back_[m][i]; });
    for (std::int64_t j = 0; j < width; ++j) {
      const double before = into[i][j] + passed[i][j];
      into[i][j] = sane((before + units_->operand.error(solution[i][j] + before)) * ProvedUnits::up);
    }
  }
}

BoundMatrix SolveBound::inverse_error() const {
  BoundMatrix error;
  product(of_triangle_, of_right_, n_, n_, error, true);
  for (std::size_t at = 0; at < error.data.size(); ++at) error.data[at] += of_solve_.data[at];
  return error;
}

} // namespace kdacheck
