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
// A solve in fp16 rounds every term of a sum to multiples of 2^-24 where it is small: that of row i errs by p_i = (1.25 (i + 1) + 4) w
// (1 + g) besides. Substitution has p in its residual; blocks have it from M^, N_D p from T_i, and from T_ii, which multiplies M^, p 1_D
// |M^| <= p 1_D N_D |T^|, 1_D ones in the diagonal blocks; or all that mirrored. With twice as much, for what is of second order as long as
// p times sums of N_D is below 1/8, E has 2 p (1_D N_D + N_D 1_D) more and the residual F_ij = 2 p (1 + sum N_D,i. + sum N_D,.j) apart from
// T^. From |T^| <= X + X (E |T^| + F), or |T^| <= X + (|T^| E + F) X,
//     |T^| <= Y + F',   |T^ - T(L^)| <= Q Y + F',   F' = Y F + F Y
// and a solution without T loses Y 2 p (1 + sum N_D). Where a number that is formed, X_D N |T^| at most, may exceed 65504 nothing is known.

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
  const BoundMatrix N = small() ? near : BoundMatrix{};
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
  if (small()) lose_small(near_blocks, transposed, near);
  product(larger, near, n, n, Q, true);
  // Y = X + Q Y, whose diagonal is divided through
  BoundMatrix all = larger;
  for (std::int64_t i = 0; i < n; ++i) {
    add_rows(all[i], 0, i, all, [&](std::int64_t m) { return Q[i][m]; });
    const double rest = 1 - Q[i][i];
    for (std::int64_t j = 0; j <= i; ++j) all[i][j] = rest > 0 ? sane(all[i][j] / rest) : infinity;
  }
  product(Q, all, n, n, of_solve_, true);
  if (small()) bound_small(N, blocks, all);
  const double used = (1 + units.operand.unit) * (1 + units.gamma(n)) - 1;
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j <= i; ++j)
      of_solve_[i][j] = sane(of_solve_[i][j] + used * all[i][j] + (all[i][j] <= units.operand.limit ? 2 * units.operand.flush : infinity));
}

void SolveBound::lose_small(const BoundMatrix& near_blocks, bool transposed, BoundMatrix& residual) {
  const double w = std::max(units_->solve.flush, 2 * units_->sums.flush);
  std::vector<double> rows(static_cast<std::size_t>(n_), 0.0), columns(rows); // sums of N_D: of each row, of each column so far
  lost_by_row_ = lost_by_column_ = rows, apart_.resize(n_, n_);
  double most = 0, p = 0;
  for (std::int64_t i = 0; i < n_; ++i) {
    const std::int64_t terms = transposed ? n_ : i + 1, start = i / score_block * score_block;
    double& row = rows[static_cast<std::size_t>(i)];
    for (std::int64_t j = start; j <= i; ++j) {
      row += near_blocks[i][j], columns[static_cast<std::size_t>(j)] += near_blocks[i][j];
      most = std::max({most, sane(row), sane(columns[static_cast<std::size_t>(j)])});
    }
    p = 2 * (1.25 * static_cast<double>(terms) + 4) * w * (1 + units_->solve_gamma(terms));
    if (!(p * most <= 0.125)) p = infinity;
    lost_by_row_[static_cast<std::size_t>(i)] = p * (1 + row);
    for (std::int64_t j = 0; j <= i; ++j) apart_[i][j] = p * (1 + row + columns[static_cast<std::size_t>(j)]);
    double of_row = 0; // N_D 1_D from column j on
    for (std::int64_t j = i; j >= start; --j) {
      of_row += near_blocks[i][j];
      residual[i][j] += p * (of_row + columns[static_cast<std::size_t>(j)]);
    }
  }
  for (std::int64_t j = 0; j < n_; ++j) lost_by_column_[static_cast<std::size_t>(j)] = p * (1 + columns[static_cast<std::size_t>(j)]);
}

void SolveBound::bound_small(const BoundMatrix& N, const BoundMatrix& blocks, BoundMatrix& all) {
  BoundMatrix left, right, reached;
  product(all, apart_, n_, n_, left, true), product(apart_, all, n_, n_, right, true);
  std::vector<double> by_row(static_cast<std::size_t>(n_), 0.0), by_column(by_row);
  for (std::int64_t i = 0; i < n_; ++i)
    for (std::int64_t j = 0; j <= i; ++j) {
      by_row[static_cast<std::size_t>(i)] += all[i][j] * lost_by_row_[static_cast<std::size_t>(j)];
      by_column[static_cast<std::size_t>(j)] += all[i][j] * lost_by_column_[static_cast<std::size_t>(i)];
    }
  lost_by_row_ = by_row, lost_by_column_ = by_column;
  for (std::size_t at = 0; at < all.data.size(); ++at) {
    const double lost = left.data[at] + right.data[at];
    all.data[at] = sane(all.data[at] + lost), of_solve_.data[at] = sane(of_solve_.data[at] + lost);
  }
  near_ = N;
  product(N, all, n_, n_, left, true), product(blocks, left, n_, n_, reached, true);
  product(all, N, n_, n_, left, true), product(left, blocks, n_, n_, right, true);
  bool fits = true;
  for (std::int64_t i = 0; i < n_; ++i) {
    for (std::int64_t j = 0; j <= i; ++j) fits = fits && std::max(sane(reached[i][j]), sane(right[i][j])) <= units_->solve.limit;
    if (!fits) std::fill(of_solve_[i], of_solve_[i] + i + 1, infinity);
  }
}

void SolveBound::keep_small(std::int64_t width, bool back, const BoundMatrix& solution, BoundMatrix& into) const {
  BoundMatrix largest, reached;
  largest.resize(n_, width), reached.resize(n_, width);
  const std::vector<double>& lost = back ? lost_by_column_ : lost_by_row_;
  for (std::int64_t i = 0; i < n_; ++i)
    for (std::int64_t j = 0; j < width; ++j) {
      into[i][j] = sane(into[i][j] + lost[static_cast<std::size_t>(i)]);
      largest[i][j] = solution[i][j] + into[i][j];
    }
  for (std::int64_t i = 0; i < n_; ++i)
    add_rows(reached[i], back ? i : 0, back ? n_ : i + 1, largest, [&](std::int64_t m) { return back ? near_[m][i] : near_[i][m]; });
  for (std::size_t at = 0; at < into.data.size(); ++at)
    if (!(reached.data[at] <= units_->solve.limit)) into.data[at] = infinity;
}

void SolveBound::round(std::int64_t width, bool back, const BoundMatrix& solution, BoundMatrix& into) const {
  if (small()) keep_small(width, back, solution, into);
  for (std::size_t at = 0; at < into.data.size(); ++at) {
    const double before = into.data[at];
    into.data[at] = sane((before + units_->operand.error(solution.data[at] + before)) * ProvedUnits::up);
  }
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
    for (std::int64_t j = 0; j < width; ++j) into[i][j] += passed[i][j];
  }
  round(width, false, solution, into);
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
    for (std::int64_t j = 0; j < width; ++j) into[i][j] += passed[i][j];
  }
  round(width, true, solution, into);
}

BoundMatrix SolveBound::inverse_error() const {
  BoundMatrix error;
  product(of_triangle_, of_right_, n_, n_, error, true);
  for (std::size_t at = 0; at < error.data.size(); ++at) error.data[at] += of_solve_.data[at];
  return error;
}

} // namespace kdacheck
