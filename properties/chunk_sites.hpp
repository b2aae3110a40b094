#pragma once
// What the chunkwise forms of KDA and of the general rule have in common, with a rounding at every site where a kernel
// has one.

#include "chunk_factors.hpp"
#include "perturbed_products.hpp"

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

namespace kdacheck {

/// What all chunkwise runs share: the log decay's error inside a chunk, decayed operands, score matrices, the inverse,
/// and products with it and with the state.
template <class Run> class ChunkSites {
public:
  using Number = typename Run::Number;

  ChunkSites(const Head& head, const Roundings& roundings) : head_(head), roundings_(roundings) {}

protected:
  static std::size_t at(std::int64_t i, std::int64_t j, std::int64_t width) { return static_cast<std::size_t>(i * width + j); }

  /// Error of the in-chunk sums of log decay: each term is resolved with its own error, each partial sum is rounded.
  void sum_log_decay(const ChunkFactors& f) {
    const std::int64_t K = head_.K;
    log_error_.assign(static_cast<std::size_t>(f.n * K), Number{});
    for (std::int64_t i = 0; i < f.n; ++i)
      for (std::int64_t c = 0; c < K; ++c) {
        const std::size_t entry = at(i, c, K);
        const double g = head_.g[at(f.first + i, c, K)];
        Number error = i > 0 ? log_error_[at(i - 1, c, K)] : Number{};
        const double resolved = head_.gate_error[at(f.first + i, c, K)];
        if (resolved > 0) error += run_->absolute_error(Site::exponential, g, resolved);
        // the sum as it stands before its rounding decides how it is rounded; the first of a chunk is exact
        if (i > 0) error += run_->absolute_error(Site::cumsum, f.G[entry] + error, roundings_.cumsum * std::abs(f.G[entry]));
        log_error_[entry] = error;
      }
  }

  /// factor * exp(log decay), where exp itself errs by its declared units and its argument by one rounding.
  Number decayed(double factor, Number log_error, double log_decay) {
    if (!roundings_.coarse)
      log_error += run_->absolute_error(Site::exponential, log_decay + log_error, roundings_.exponential + 0x1p-24 * std::abs(log_decay));
    return factor * grow(log_error);
  }

  /// A normalised row of q or k as the kernel has it: a common error from the norm, and a rounding of its own.
  void normalise(std::vector<Number>& rows, const std::vector<double>& exact, const ChunkFactors& f, Site site) {
    const std::int64_t K = head_.K;
    rows.resize(static_cast<std::size_t>(f.n * K));
    for (std::int64_t i = 0; i < f.n; ++i) {
      Number common = Number{} + 1.0;
      if (head_.normalised) common += run_->absolute_error(Site::norm, exact[at(f.first + i, 0, K)], head_.norm_error);
      for (std::int64_t c = 0; c < K; ++c) {
        const Number x = common * exact[at(f.first + i, c, K)];
        rows[at(i, c, K)] = head_.normalised ? run_->round(roundings_.operand, site, x) : x;
      }
    }
  }

  /// Sum of log decay up to token i of the chunk (before it, if exclusive), and its error.
  double log_decay(const ChunkFactors& f, std::int64_t i, std::int64_t c, bool exclusive) const {
    return exclusive ? (i > 0 ? f.G[at(i - 1, c, head_.K)] : 0.0) : f.G[at(i, c, head_.K)];
  }
  Number log_error(std::int64_t i, std::int64_t c, bool exclusive) const {
    return exclusive ? (i > 0 ? log_error_[at(i - 1, c, head_.K)] : Number{}) : log_error_[at(i, c, head_.K)];
  }

  /// Rows of a score matrix: `source` [n,K] with decay up to (or before) the row; strict: only columns before the row.
  struct ScoreRows {
    const std::vector<Number>& source;
    bool exclusive, strict;
    Site site;
    std::vector<Number> operand = {}; ///< the block at hand
  };
  struct ScoreColumns {
    const std::vector<Number>& source;
    Site site;
  };

  /// store(r, c, i, j, x) for every entry x = sum_k row_ik column_jk e^{G_i - G_j} of every pair of rows and columns.
  template <class Store>
  void score(const ChunkFactors& f, std::vector<ScoreRows> rows, const std::vector<ScoreColumns>& columns, Store&& store) {
    for (std::int64_t block = 0; block < f.blocks(); ++block)
      for (bool exclusive : {false, true}) {
        if (std::none_of(rows.begin(), rows.end(), [&](const ScoreRows& r) { return r.exclusive == exclusive; })) continue;
        const auto b = static_cast<std::size_t>(block);
        const std::int64_t start = block * score_block, count = std::min(score_block, f.n - start);
        if (block > 0)
          score_against(f, start, count, 0, start, start, exclusive, exclusive, exclusive ? f.before_row : f.row,
                        exclusive ? f.before_column[b] : f.column[b], 0, nullptr, rows, columns, store);
        const double* pair = !f.steep[b] ? nullptr : exclusive ? f.before_pair[b].data() : f.pair[b].data();
        score_against(f, start, count, start, count, f.middle(block), exclusive, false, exclusive ? f.before_middle_row : f.middle_row,
                      f.middle_column, start, pair, rows, columns, store);
      }
  }

  /// Rows start.. against columns first_column..: both decay towards the anchor token (exclusive: the sum before it).
  /// Factors of the columns begin at row `factor_offset` of their table.
  template <class Store>
  void score_against(const ChunkFactors& f, std::int64_t start, std::int64_t count, std::int64_t first_column, std::int64_t column_count,
                     std::int64_t anchor, bool exclusive, bool exclusive_anchor, const std::vector<double>& row_factor,
                     const std::vector<double>& column_factor, std::int64_t factor_offset, const double* pair, std::vector<ScoreRows>& rows,
                     const std::vector<ScoreColumns>& columns, Store&& store) {
    const std::int64_t K = head_.K;
    const bool diagonal = first_column == start;
    for (ScoreRows& r : rows) {
      if (r.exclusive != exclusive) continue;
      r.operand.resize(static_cast<std::size_t>(count * K));
      for (std::int64_t i = 0; i < count; ++i)
        for (std::int64_t c = 0; c < K; ++c) {
          const Number error = log_error(start + i, c, exclusive) - log_error(anchor, c, exclusive_anchor);
          const double distance = log_decay(f, start + i, c, exclusive) - log_decay(f, anchor, c, exclusive_anchor);
          const std::size_t entry = at(start + i, c, K);
          r.operand[at(i, c, K)] = run_->round(roundings_.score, r.site, r.source[entry] * decayed(row_factor[entry], error, distance));
        }
    }
    for (std::size_t which = 0; which < columns.size(); ++which) {
      column_.resize(static_cast<std::size_t>(column_count * K));
      for (std::int64_t j = 0; j < column_count; ++j)
        for (std::int64_t c = 0; c < K; ++c) {
          const Number error = log_error(anchor, c, exclusive_anchor) - log_error_[at(first_column + j, c, K)];
          const double distance = log_decay(f, anchor, c, exclusive_anchor) - f.G[at(first_column + j, c, K)];
          column_[at(j, c, K)] = run_->round(roundings_.score, columns[which].site,
                                             columns[which].source[at(first_column + j, c, K)] *
                                                 decayed(column_factor[at(factor_offset + j, c, K)], error, distance));
        }
      for (std::size_t r = 0; r < rows.size(); ++r) {
        if (rows[r].exclusive != exclusive) continue;
        const std::vector<Number>& row = rows[r].operand;
        const bool strict = rows[r].strict;
        for (std::int64_t i = 0; i < count; ++i) {
          const std::int64_t width = !diagonal ? column_count : strict ? i : i + 1;
          const auto multiply_row = [&](auto&& column) {
            multiply(
                *run_, 1, [&](std::int64_t) { return width; },
                [K](std::int64_t, std::int64_t) {
                  return Range{0, K};
                },
                [](std::int64_t, std::int64_t) { return Number{}; }, [&](std::int64_t, std::int64_t c) { return row[at(i, c, K)]; }, column,
                [&](std::int64_t, std::int64_t j, Number x) { store(r, which, start + i, first_column + j, x); });
          };
          if (pair == nullptr) {
            multiply_row([&](std::int64_t c, std::int64_t j) { return column_[at(j, c, K)]; });
          } else { // decays that no anchor could split without overflow
            multiply_row([&](std::int64_t c, std::int64_t j) { return column_[at(j, c, K)] * pair[at(i * score_block + j, c, K)]; });
          }
        }
      }
    }
  }

  /// T = (I + L)^{-1} by rows, then T as an operand. The diagonal is exactly 1 in any format.
  void invert(std::int64_t n) {
    inverse_.assign(static_cast<std::size_t>(n * n), Number{});
    for (std::int64_t i = 0; i < n; ++i) {
      inverse_[at(i, i, n)] = Number{} + 1.0;
      multiply(
          *run_, 1, [&](std::int64_t) { return i; },
          [&](std::int64_t, std::int64_t j0) {
            return Range{j0, i};
          },
          [](std::int64_t, std::int64_t) { return Number{}; }, [&](std::int64_t, std::int64_t c) { return triangle_[at(i, c, n)]; },
          [&](std::int64_t c, std::int64_t j) { return inverse_[at(c, j, n)]; },
          [&](std::int64_t, std::int64_t j, Number x) { inverse_[at(i, j, n)] = -run_->round(roundings_.solve, Site::solve, x); });
    }
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t j = 0; j < i; ++j) inverse_[at(i, j, n)] = run_->round(roundings_.operand, Site::inverse, inverse_[at(i, j, n)]);
    state_operand_.resize(state_.size());
    for (std::size_t entry = 0; entry < state_.size(); ++entry)
      state_operand_[entry] = run_->round(roundings_.operand, Site::state_operand, state_[entry]);
  }

  /// rows x V product of a [rows, inner] matrix with the state as an operand.
  template <class Store> void times_state(const std::vector<Number>& matrix, std::int64_t rows, Store&& store) {
    const std::int64_t K = head_.K, V = head_.V;
    multiply(
        *run_, rows, [V](std::int64_t) { return V; },
        [K](std::int64_t, std::int64_t) {
          return Range{0, K};
        },
        [](std::int64_t, std::int64_t) { return Number{}; }, [&](std::int64_t i, std::int64_t c) { return matrix[at(i, c, K)]; },
        [&](std::int64_t c, std::int64_t j) { return state_operand_[at(c, j, V)]; }, store);
  }

  /// Lower triangular [n,n] times [n,width].
  template <class Start, class Store>
  void triangular(const std::vector<Number>& matrix, const std::vector<Number>& right, std::int64_t n, std::int64_t width, Start&& start,
                  Store&& store) {
    multiply(
        *run_, n, [width](std::int64_t) { return width; },
        [](std::int64_t i, std::int64_t) {
          return Range{0, i + 1};
        },
        start, [&, n](std::int64_t i, std::int64_t c) { return matrix[at(i, c, n)]; },
        [&, width](std::int64_t c, std::int64_t j) { return right[at(c, j, width)]; }, store);
  }

  /// state <- Diag(e^{G_C}) state + sum_i kr_i u_i^T over pairs of [n,K] and [n,V] matrices, stored as the contract says.
  void carry(const ChunkFactors& f, const std::vector<std::pair<const std::vector<Number>*, const std::vector<Number>*>>& writes) {
    const std::int64_t n = f.n, K = head_.K, V = head_.V;
    next_state_.resize(state_.size());
    for (std::int64_t c = 0; c < K; ++c) {
      const Number error = log_error_[at(n - 1, c, K)];
      const double sum = f.G[at(n - 1, c, K)];
      const Number whole =
          f.whole[static_cast<std::size_t>(c)] *
          grow(error + run_->absolute_error(Site::exponential, sum + error, roundings_.exponential + 0x1p-24 * std::abs(sum)));
      for (std::int64_t j = 0; j < V; ++j) next_state_[at(c, j, V)] = whole * state_[at(c, j, V)];
    }
    for (const auto& [key, value] : writes)
      multiply(
          *run_, K, [V](std::int64_t) { return V; },
          [n](std::int64_t, std::int64_t) {
            return Range{0, n};
          },
          [&](std::int64_t c, std::int64_t j) { return next_state_[at(c, j, V)]; },
          [&, k = key](std::int64_t c, std::int64_t i) { return (*k)[at(i, c, K)]; },
          [&, v = value](std::int64_t i, std::int64_t j) { return (*v)[at(i, j, V)]; },
          [&](std::int64_t c, std::int64_t j, Number x) { next_state_[at(c, j, V)] = x; });
    for (std::size_t entry = 0; entry < state_.size(); ++entry)
      state_[entry] = run_->round(roundings_.state, Site::state, next_state_[entry]);
  }

  const Head& head_;
  const Roundings& roundings_;
  Run* run_ = nullptr;
  std::vector<Number> log_error_;                          ///< [n,K]
  std::vector<Number> state_, state_operand_, next_state_; ///< [K,V]
  std::vector<Number> triangle_, inverse_;                 ///< [n,n] L, T
  std::vector<Number> column_;
};

} // namespace kdacheck
