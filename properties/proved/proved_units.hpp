#pragma once
// The largest error of one elementary step of a kernel that keeps its contract. Every constant of the proved bounds
// stands here, with its reason; what follows from them is derived in proved_chunk.cpp and proved_recurrence.cpp.
// N. J. Higham, Accuracy and Stability of Numerical Algorithms (2nd ed.), is meant by "Higham".

#include "../../kernels/contract.hpp"
#include "../cases/portable_math.hpp"

#include <algorithm>
#include <limits>

namespace kdacheck {

/// Rounding of x to a format: |fl(x) - x| <= unit |x| + flush if |x| <= limit; beyond it, it may overflow.
struct Elementary {
  double unit, flush, limit;

  /// Error of rounding something of size at most `size`.
  double error(double size) const { return size <= limit ? unit * size + flush : std::numeric_limits<double>::infinity(); }
};

struct ProvedUnits {
  static constexpr double single = 0x1p-24; ///< one fp32 operation, to nearest

  // Second-order terms of products (1 + a)(1 + b) are kept, so that no first-order argument stands in the chunk bound. Only
  // sums of log decay and the recurrence use 1.01 for them: with n u <= 2^-9, (1 + u)^n - 1 <= 1.01 n u (Higham, lemma 3.1).
  static constexpr double second_order = 1.01;

  // The bound itself is computed in fp64, from values that are computed in fp64. Two errors, two reasons:
  // 1. Each of its lines has fewer than K + C + 64 operations on numbers >= 0, relative error (K + C + 64) 2^-53 < 2^-42,
  //    and a chunk applies fewer than 64 lines in turn: < 2^-36.
  // 2. The fp64 values err like those of a kernel whose units are all 2^-53. The bound grows at least in proportion to
  //    its units, which are floored at 2^-24: the values lie within 2^-29 of the bound itself, and a chunk uses them fewer
  //    than 64 times: < 2^-23.
  static constexpr double up = 1 + 0x1p-20;

  // An anchor r splits e^{G_i - G_j} = e^{G_i - r} e^{r - G_j}. Between the rows both factors decay. An anchor elsewhere in
  // i's block of 16 makes one factor grow while the other decays; by more than e^44 = 2^63.5 it would meet underflow on the
  // other side (2^-126 2^63.5 = 2^-62.5 is still invisible), which the contract does not excuse.
  static constexpr double largest_growth = 44;

  // The argument of an exponential is a difference, perhaps multiplied by log2 e, itself a rounded constant: 3 u |argument|.
  static constexpr double argument = 3 * single;

  Elementary operand, score, solve, state, gradient_state, sums;
  double accumulate, cumsum, exponential;
  bool decay_sums; ///< dg is a running sum where gradients are formed token by token

  explicit ProvedUnits(const Contract& c)
      : operand(elementary(c.operands, c.truncate)), score(elementary(c.scores, c.truncate)), solve(elementary(c.solve, false)),
        state(elementary(c.state, false)), gradient_state(elementary(c.gradient_state, false)), sums(elementary(c.accumulate, false)),
        accumulate(2 * floored(c.accumulate)), cumsum(elementary(c.cumsum, c.truncate).unit),
        // one unit in the last place is at most 2 u of the value; nobody's exp is better than half of one
        exponential(2 * std::max(c.exp_ulp, 0.5) * single), decay_sums(c.decay_gradient == DecayGradient::sums) {}

  /// gamma_n = n u / (1 - n u) (Higham, lemma 3.1) of n additions in any order. A tensor core aligns blocks of at least
  /// four products with the largest one and truncates each: u is doubled, and every four terms count as five.
  double gamma(std::int64_t n) const { return gamma_of(accumulate, n); }
  /// The same for sums inside the triangular solve.
  double solve_gamma(std::int64_t n) const { return gamma_of(std::max(accumulate, solve.unit), n); }

  /// What a column of a stored state or cotangent of this size (errors included) is read wrong by; `root`: of its length.
  double as_read(double size, double root) const {
    if (!(gradient_state.unit > single)) return 0;
    if (!(size <= gradient_state.limit)) return std::numeric_limits<double>::infinity();
    return gradient_state.unit * size + root * gradient_state.flush;
  }

  /// A row that a kernel normalises itself may be rounded to an operand as it is. fp16 rounds what is small to multiples of 2^-24, though
  /// nothing by more than itself: by how much more than `unit` x may err, relative to itself; as a logarithm; what it is of a row whose
  /// norm this is, in the euclidean norm.
  double small_part(double x) const {
    return operand.flush > 0x1p-100 && x != 0 ? std::max(0.0, std::min(1.0, operand.flush / std::abs(x)) - operand.unit) : 0;
  }
  double small_log(double x) const {
    const double part = small_part(x);
    return part > 0 ? portable::log1p(operand.unit + part) - portable::log1p(operand.unit) : 0;
  }
  double small_row(double norm, double root) const {
    return operand.flush > 0x1p-100 && norm > 0 ? std::min(1.0, root * operand.flush / norm) : 0;
  }

  /// Largest relative error of 1/sqrt(sum x^2 + eps) times x: half the sum's, a root, a quotient, a product.
  double norm(std::int64_t K) const { return 0.5 * gamma(K) + 8 * single; }

private:
  /// A unit no finer than fp32's, which reason 2 of `up` needs; it only widens bounds of contracts that promise fp64.
  static double floored(Format format) { return std::max(unit_roundoff(format), single); }
  static Elementary elementary(Format format, bool truncate) {
    // Truncation errs by a whole unit in the last place. fp16 rounds subnormals to multiples of 2^-24; elsewhere results
    // below 2^-126 may be flushed.
    return {floored(format) * (truncate && format == Format::tf32 ? 2 : 1), format == Format::fp16 ? 0x1p-25 : 0x1p-126,
            format == Format::fp64 ? largest(Format::fp32) : largest(format)};
  }
  static double gamma_of(double unit, std::int64_t n) {
    const double x = (1.25 * static_cast<double>(n) + 4) * unit;
    return x < 1 ? x / (1 - x) : std::numeric_limits<double>::infinity();
  }
};

} // namespace kdacheck
