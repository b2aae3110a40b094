#pragma once
// Sums of products of a noise-free or perturbed run, and the roundings that a contract declares.

#include "rounding_noise.hpp"

#include <cstdint>
#include <vector>

namespace kdacheck {

/// Roundings of a contract by kind.
struct Roundings {
  Rounding operand;                         ///< an input of a matrix product, after one or two fp32 operations
  Rounding score;                           ///< an operand of Akk and Aqk
  Rounding solve;                           ///< an entry of the triangular solve
  Rounding state;                           ///< the carried state
  Rounding single;                          ///< one fp32 operation
  Rounding gradient_step;                   ///< a product and an addition in fp32
  Rounding gradient_state;                  ///< a stored state, or its cotangent, as gradients read it
  bool gradient_state_rounds = false;       ///< it is stored coarser than fp32
  Rounding sum;                             ///< a partial sum of log decays
  bool decay_sums = false;                  ///< dg is a running sum where gradients are formed token by token
  double cumsum = 0x1p-24, exponential = 0; ///< unit of in-chunk sums; largest relative error of exp
  Format accumulate = Format::fp32;
  bool accumulates = false;    ///< sums of products err visibly next to what rounding their operands does
  bool coarse = false;         ///< operands are so coarse that fp32 operations before them do not show
  bool coarse_operand = false; ///< all but those of scores are
};

/// `overflows`: results beyond the largest number of a format are infinite.
inline Roundings roundings_of(const Contract& contract, bool overflows = true) {
  Roundings r;
  r.operand = rounding_to(contract.operands, contract.truncate, 2);
  r.score = rounding_to(contract.scores, contract.truncate, 2);
  r.solve = rounding_to(contract.solve, false, 2);
  r.state = rounding_to(contract.state, false, 2);
  r.single = rounding_to(Format::fp32, false, 1);
  r.gradient_step = rounding_to(Format::fp32, false, 2);
  r.gradient_state = rounding_to(contract.gradient_state, false, 1);
  r.gradient_state_rounds = unit_roundoff(contract.gradient_state) > unit_roundoff(Format::fp32);
  // A product with a triangle of ones rounds, or truncates, every term of the sum; a running sum its partial sums. Log decays
  // have one sign, so that an error of a unit of each partial sum covers both.
  r.cumsum = unit_roundoff(contract.cumsum) * (contract.truncate && contract.cumsum == Format::tf32 ? 2 : 1);
  r.sum = rounding_to(contract.cumsum, contract.truncate, 1);
  r.sum.overflow = std::numeric_limits<double>::infinity();
  r.exponential = 2 * contract.exp_ulp * 0x1p-24;
  // A sum of n products errs by at most n u_acc of what rounding its operands once may do, relative to the operands' u: at
  // a ratio of 2^-10 even n = 512 leaves it invisible.
  const double finest = std::min(r.operand.unit, r.score.unit);
  r.coarse = finest > 0x1p-14;
  r.coarse_operand = r.operand.unit > 0x1p-14;
  r.decay_sums = contract.decay_gradient == DecayGradient::sums;
  r.accumulate = contract.accumulate;
  r.accumulates = unit_roundoff(contract.accumulate) > 0x1p-10 * finest;
  if (!overflows)
    for (Rounding* each : {&r.operand, &r.score, &r.solve, &r.state, &r.gradient_state})
      each->overflow = std::numeric_limits<double>::infinity();
  return r;
}

/// e^x for |x| <= `largest_small`: the effect of an error of the log decay. Errs by less than 2^-16 |x|.
inline constexpr double largest_small = 0x1p-4;
template <class Number> Number grow(Number x) { return 1.0 + x * (1.0 + x * (0.5 + x * (1.0 / 6))); }

struct Range {
  std::int64_t begin, end;
};

/// One row's sums for `width` columns at once: their additions do not wait for each other.
template <std::int64_t width, class Run, class Start, class A, class B, class Store>
void sum_columns(Run& run, std::int64_t i, std::int64_t j0, Range r, Start& start, A& a, B& b, Store& store) {
  typename Run::Number sum[width];
  for (std::int64_t j = 0; j < width; ++j) sum[j] = start(i, j0 + j);
  if constexpr (Run::records) {
    if (run.follows()) {
      typename Run::Twin twin[width];
      for (std::int64_t j = 0; j < width; ++j) twin[j] = run.start(sum[j]);
      for (std::int64_t c = r.begin; c < r.end; ++c) {
        const auto x = a(i, c);
        for (std::int64_t j = 0; j < width; ++j) {
          const double term = x * b(c, j0 + j);
          sum[j] += term;
          run.add(twin[j], term, sum[j]);
        }
      }
      for (std::int64_t j = 0; j < width; ++j) run.finish(twin[j], sum[j]);
    } else {
      double squares[width] = {};
      for (std::int64_t c = r.begin; c < r.end; ++c) {
        const auto x = a(i, c);
        for (std::int64_t j = 0; j < width; ++j) {
          const double term = x * b(c, j0 + j);
          sum[j] += term;
          squares[j] += run.squares_of(term, sum[j]);
        }
      }
      for (std::int64_t j = 0; j < width; ++j) run.finish(squares[j]);
    }
  } else {
    for (std::int64_t c = r.begin; c < r.end; ++c) {
      const auto x = a(i, c);
      for (std::int64_t j = 0; j < width; ++j) sum[j] += x * b(c, j0 + j);
    }
  }
  for (std::int64_t j = 0; j < width; ++j) store(i, j0 + j, run.sum_error(sum[j]));
}

/// store(i, j, start(i, j) + sum over c in range(i, j0) of a(i, c) b(c, j)) for i < rows, j < columns(i); j0 is the first
/// column of a block of up to eight that are summed together, over the same range.
template <class Run, class Columns, class Extent, class Start, class A, class B, class Store>
void multiply(Run& run, std::int64_t rows, Columns&& columns, Extent&& range, Start&& start, A&& a, B&& b, Store&& store) {
  constexpr std::int64_t width = 8;
  for (std::int64_t i = 0; i < rows; ++i) {
    const std::int64_t all = columns(i);
    std::int64_t j0 = 0;
    for (; j0 + width <= all; j0 += width) sum_columns<width>(run, i, j0, range(i, j0), start, a, b, store);
    for (; j0 < all; ++j0) sum_columns<1>(run, i, j0, range(i, j0), start, a, b, store);
  }
}

} // namespace kdacheck
