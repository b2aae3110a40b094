#pragma once
// Errors of keys and queries that are rounded anew for every pair of tokens.
//
// A kernel may let a key decay by all of e^{G_i - G_j} for each pair and round it there: its errors, that of the exponential among them,
// are then not those of a row or a column, which all pairs share and which cancel where their signs alternate (reflections), but one for
// each pair and channel. A sum of them errs by the root of its squared terms. The squares are taken from one draw: sizes need no more.
//
// The argument G_i - G_j of a pair's exponential is rounded too, by 2^-24 |G_i - G_j| at a time, which is left to rows and columns: a term
// has decayed by e^{-|G_i - G_j|}, so that a rounding costs it at most 2^-24 / e of its size before the decay, against the 2^-22 of an
// exponential of exp_ulp=2 where it does not decay: less than a tenth, its square less than a hundredth of what is drawn. Three roundings
// (ProvedUnits::argument) make 0.28 of it, their square 0.08; where all pairs decay none cancels.

#include "chunk_factors.hpp"
#include "perturbed_products.hpp"

#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

namespace kdacheck {

/// Relative error of one channel of one pair: what rounding it leaves, and its exponential.
inline double unit_of_pairs(const Roundings& roundings) { return std::hypot(roundings.score.unit, roundings.exponential); }

/// Of one block of rows against its columns, [block,K] and [columns,K]. Does nothing for runs that draw no pairs.
template <class Run> class PairErrors {
public:
  using Number = typename Run::Number;

  PairErrors(double unit, std::int64_t K) : unit_(unit), K_(K) {}

  /// `decays` [16,16,K]: of each pair, where rows and columns hold none; or null.
  void read_columns(const std::vector<Number>& columns, std::int64_t count, const double* decays) {
    decays_ = decays;
    read(columns, count, columns_);
  }
  void read_rows(const std::vector<Number>& rows, std::int64_t count) { read(rows, count, rows_); }

  /// x, the sum over channels of row i times column j, with the errors of its pairs.
  Number of_score(Run& run, Number x, std::int64_t i, std::int64_t j) const {
    if constexpr (Run::draws_pairs) {
      const double *row = line(rows_, i), *column = line(columns_, j);
      double sum = 0;
      for (std::int64_t c = 0; c < K_; ++c) sum += row[c] * column[c] * square_of_decay(i, j, c);
      x += run.fresh_error(unit_ * std::sqrt(sum));
    }
    return x;
  }

  /// Sums over pairs (i, j) of weight times column j, or row i, channel by channel: start, add each pair, then take them.
  void start() {
    if constexpr (Run::draws_pairs) sums_.assign(static_cast<std::size_t>(K_), 0.0);
  }
  void add_column(Number weight, std::int64_t i, std::int64_t j) { add(weight, line(columns_, j), i, j); }
  void add_row(Number weight, std::int64_t i, std::int64_t j) { add(weight, line(rows_, i), i, j); }
  Number of_sum(Run& run, Number x, std::int64_t c) const {
    if constexpr (Run::draws_pairs) x += run.fresh_error(unit_ * std::sqrt(sums_[static_cast<std::size_t>(c)]));
    return x;
  }

private:
  static double one_of(const Number& x) {
    if constexpr (std::is_same_v<Number, double>)
      return x;
    else
      return x[0];
  }
  const double* line(const std::vector<double>& squares, std::int64_t i) const { return squares.data() + i * K_; }
  double square_of_decay(std::int64_t i, std::int64_t j, std::int64_t c) const {
    if (decays_ == nullptr) return 1;
    const double decay = decays_[(i * score_block + j) * K_ + c];
    return decay * decay;
  }
  void read(const std::vector<Number>& from, std::int64_t count, std::vector<double>& into) const {
    if constexpr (Run::draws_pairs) {
      into.resize(static_cast<std::size_t>(count * K_));
      for (std::size_t at = 0; at < into.size(); ++at) into[at] = one_of(from[at]) * one_of(from[at]);
    }
  }
  void add(Number weight, const double* squares, std::int64_t i, std::int64_t j) {
    if constexpr (Run::draws_pairs) {
      const double factor = one_of(weight) * one_of(weight);
      for (std::int64_t c = 0; c < K_; ++c) sums_[static_cast<std::size_t>(c)] += factor * squares[c] * square_of_decay(i, j, c);
    }
  }

  double unit_;
  std::int64_t K_;
  const double* decays_ = nullptr;
  std::vector<double> rows_, columns_, sums_; ///< squares; [K]
};

} // namespace kdacheck
