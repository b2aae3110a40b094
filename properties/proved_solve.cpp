// Inverse. T(L^) = (I + T dL)^{-1} T; T dL is strictly lower, so |T(L^)| <= X, X = |T| + |T| dL X by forward recursion: finite.
//   Covered are all algorithms whose T^ (or whose solution, if no T is formed) has a residual on either side
//     |(I + L^) T^ - I| <= N X_D N |T^| g   or   |T^ (I + L^) - I| <= |T^| N X_D N g,     N = I + |L^|, g = gamma of the solve,
//   X_D the diagonal blocks of X of 16 rows. Substitution by rows or columns has N alone (Higham, theorem 8.5, section 14.2);
//   substitution by blocks of up to 16 whose diagonal blocks are inverted first adds X_D N: for a block row
//   fl(T_ii fl(sum L_ik T_k)), the errors are g |L_ii'||T_ii||sum L_ik T_k| and less. Repeated squaring is not in this class: its
//   powers of L may be far larger than T. With Q = g X N X_D N either side gives |T^ - T(L^)| <= Q Y, |T^| <= Y = (I - Q)^{-1} X, since
//   X (I - g N X_D N X)^{-1} = (I - g X N X_D N)^{-1} X.
// Solve, T B for given B with dB. (T(L^) - T) B = -T(L^) dL T B, so that with P = |T| dB
//     d(TB) <= P + X dL (|TB| + P) + (Q + (1 + u)(1 + g_n) - 1) Y (|B| + dB) + flush, then one operand rounding.

#include "proved_solve.hpp"

#include "chunk_factors.hpp"

#include <algorithm>

namespace kdacheck {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

} // namespace

void SolveBound::enter(const ProvedUnits& units, std::int64_t n, const BoundMatrix& L, const BoundMatrix& L_error) {
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
  blocks = larger;
  for (std::int64_t i = 0; i < n; ++i) std::fill(blocks[i], blocks[i] + i / score_block * score_block, 0.0);
  BoundMatrix Q;
  product(larger, near, n, n, there, true);
  product(there, blocks, n, n, Q, true);
  product(Q, near, n, n, there, true);
  const double g = units.solve_gamma(n + score_block);
  for (double& x : there.data) x *= g;
  Q = there;
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

} // namespace kdacheck
