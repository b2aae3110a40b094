#pragma once
// What the chunkwise forms of KDA and of the general rule have in common, with a rounding at every site where a kernel
// has one.

#include "log_decay_sites.hpp"
#include "pair_errors.hpp"
#include "pair_sums.hpp"
#include "perturbed_products.hpp"

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

namespace kdacheck {

/// What all chunkwise runs share: the log decay's error inside a chunk, decayed operands, score matrices, the inverse,
/// and products with it and with the state.
template <class Run> class ChunkSites : protected LogDecaySites<Run> {
  using Base = LogDecaySites<Run>;

public:
  using Number = typename Run::Number;

  ChunkSites(const Head& head, const Roundings& roundings) : Base(head, roundings), pairs_(unit_of_pairs(roundings), head.K) {}

protected:
  using Base::at, Base::decayed, Base::grown, Base::log_decay, Base::log_error;
  using Base::head_, Base::roundings_, Base::run_, Base::log_error_;

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

  /// A block of rows against the columns of an anchor: those before the block, or its own (diagonal).
  struct Frame {
    std::int64_t start, count, first_column, column_count, anchor;
    bool exclusive, exclusive_anchor; ///< of the rows, of the anchor
    const std::vector<double>&row_factor, &column_factor;
    std::int64_t factor_offset; ///< row of column_factor that holds the first column
    const double* pair;         ///< decays that no anchor could split without overflow: the factors are then 1

    bool diagonal() const { return first_column == start; }
    std::int64_t width(std::int64_t i, bool strict) const { return !diagonal() ? column_count : strict ? i : i + 1; }
  };

  template <class Visit> static void for_each_frame(const ChunkFactors& f, bool exclusive, Visit&& visit) {
    for (std::int64_t block = 0; block < f.blocks(); ++block) {
      const auto b = static_cast<std::size_t>(block);
      const std::int64_t start = block * score_block, count = std::min(score_block, f.n - start);
      if (block > 0)
        visit(Frame{start, count, 0, start, start, exclusive, exclusive, exclusive ? f.before_row : f.row,
                    exclusive ? f.before_column[b] : f.column[b], 0, nullptr});
      visit(Frame{start, count, start, count, f.middle(block), exclusive, false, exclusive ? f.before_middle_row : f.middle_row,
                  f.middle_column, start,
                  !f.steep[b] ? nullptr
                  : exclusive ? f.before_pair[b].data()
                              : f.pair[b].data()});
    }
  }

  /// e^{G_i - r} and e^{r - G_j} of a frame, each computed once more wherever it is used.
  Number row_decay(const ChunkFactors& f, const Frame& frame, std::int64_t i, std::int64_t c) {
    const std::int64_t row = frame.start + i;
    return decayed(frame.row_factor[at(row, c, head_.K)],
                   log_error(row, c, frame.exclusive) - log_error(frame.anchor, c, frame.exclusive_anchor),
                   log_decay(f, row, c, frame.exclusive) - log_decay(f, frame.anchor, c, frame.exclusive_anchor));
  }
  Number column_decay(const ChunkFactors& f, const Frame& frame, std::int64_t j, std::int64_t c) {
    const std::int64_t column = frame.first_column + j;
    return decayed(frame.column_factor[at(frame.factor_offset + j, c, head_.K)],
                   log_error(frame.anchor, c, frame.exclusive_anchor) - log_error(column, c, false),
                   log_decay(f, frame.anchor, c, frame.exclusive_anchor) - log_decay(f, column, c, false));
  }

  /// A row's or column's entry rounded at its anchor, unless every pair rounds its own.
  Number as_anchored(Site site, Number x) {
    if constexpr (Run::rounds_pairs)
      return x;
    else
      return run_->round(roundings_.score, site, x);
  }

  void fill_rows(const ChunkFactors& f, const Frame& frame, ScoreRows& rows) {
    const std::int64_t K = head_.K;
    rows.operand.resize(static_cast<std::size_t>(frame.count * K));
    for (std::int64_t i = 0; i < frame.count; ++i)
      for (std::int64_t c = 0; c < K; ++c)
        rows.operand[at(i, c, K)] = as_anchored(rows.site, rows.source[at(frame.start + i, c, K)] * row_decay(f, frame, i, c));
  }
  void fill_columns(const ChunkFactors& f, const Frame& frame, const ScoreColumns& columns) {
    const std::int64_t K = head_.K;
    column_.resize(static_cast<std::size_t>(frame.column_count * K));
    for (std::int64_t j = 0; j < frame.column_count; ++j)
      for (std::int64_t c = 0; c < K; ++c)
        column_[at(j, c, K)] = as_anchored(columns.site, columns.source[at(frame.first_column + j, c, K)] * column_decay(f, frame, j, c));
  }

  /// A row's or column's entry as the operand for one pair. A kernel may let it decay by all of e^{G_i - G_j} before it rounds
  /// it, and fp16 has no finer numbers than 2^-24: an error that an anchor elsewhere, with `rest` of the decay still to come,
  /// would make smaller by `rest`. A run that rounds pairs has it exactly until then.
  Number paired(const Frame& frame, Site site, Number entry, double rest, std::int64_t i, std::int64_t j, std::int64_t c) {
    const auto round = [&](Number x) {
      if constexpr (Run::rounds_pairs)
        return run_->round(roundings_.score, site, x);
      else
        return run_->underflow(roundings_.score, site, x);
    };
    if (frame.pair != nullptr) return round(entry * frame.pair[at(i * score_block + j, c, head_.K)]);
    if (!(Run::rounds_pairs || roundings_.score.quantum > 0) || !(rest > 0x1p-1000)) return entry;
    const Number decayed_entry = entry * rest;
    return entry + (round(decayed_entry) - decayed_entry) * (1 / rest);
  }
  double rest_of_row(const Frame& frame, std::int64_t i, std::int64_t c) const { return frame.row_factor[at(frame.start + i, c, head_.K)]; }
  double rest_of_column(const Frame& frame, std::int64_t j, std::int64_t c) const {
    return frame.column_factor[at(frame.factor_offset + j, c, head_.K)];
  }

  /// store(r, c, i, j, x) for every entry x = sum_k row_ik column_jk e^{G_i - G_j} of every pair of rows and columns.
  template <class Store>
  void score(const ChunkFactors& f, std::vector<ScoreRows> rows, const std::vector<ScoreColumns>& columns, Store&& store) {
    const std::int64_t K = head_.K;
    for (bool exclusive : {false, true}) {
      if (std::none_of(rows.begin(), rows.end(), [&](const ScoreRows& r) { return r.exclusive == exclusive; })) continue;
      for_each_frame(f, exclusive, [&](const Frame& frame) {
        for (ScoreRows& r : rows)
          if (r.exclusive == exclusive) fill_rows(f, frame, r);
        for (std::size_t which = 0; which < columns.size(); ++which) {
          fill_columns(f, frame, columns[which]);
          pairs_.read_columns(column_, frame.column_count, frame.pair);
          for (std::size_t r = 0; r < rows.size(); ++r) {
            if (rows[r].exclusive != exclusive) continue;
            pairs_.read_rows(rows[r].operand, frame.count);
            for (std::int64_t i = 0; i < frame.count; ++i) {
              const auto multiply_row = [&](auto&& column) {
                multiply(
                    *run_, 1, [&](std::int64_t) { return frame.width(i, rows[r].strict); },
                    [K](std::int64_t, std::int64_t) {
                      return Range{0, K};
                    },
                    [](std::int64_t, std::int64_t) { return Number{}; },
                    [&](std::int64_t, std::int64_t c) { return rows[r].operand[at(i, c, K)]; }, column,
                    [&](std::int64_t, std::int64_t j, Number x) {
                      store(r, which, frame.start + i, frame.first_column + j, pairs_.of_score(*run_, x, i, j));
                    });
              };
              if (frame.pair == nullptr && !(Run::rounds_pairs || roundings_.score.quantum > 0)) {
                multiply_row([&](std::int64_t c, std::int64_t j) { return column_[at(j, c, K)]; });
              } else {
                multiply_row([&](std::int64_t c, std::int64_t j) {
                  return paired(frame, columns[which].site, column_[at(j, c, K)], rest_of_row(frame, i, c), i, j, c);
                });
              }
            }
          }
        }
      });
    }
  }

  /// Reverse of score for entries i > j: row gradients get sum_j d_ij column_j e^{G_i - G_j}, column gradients
  /// sum_i d_ij row_i e^{G_i - G_j}, where d_ij is weight(r, c, i, j). In a run that records `gate_` gets both, times of_row(r, i, c) and
  /// -of_column(c, j, c): where a kernel adds what pairs give to dG to one running number per token and channel, that is it.
  template <class Weight, class OfRow, class OfColumn>
  void score_backward(const ChunkFactors& f, std::vector<ScoreRows> rows, const std::vector<ScoreColumns>& columns, Weight&& weight,
                      const std::vector<std::vector<Number>*>& row_gradients, const std::vector<std::vector<Number>*>& column_gradients,
                      OfRow&& of_row, OfColumn&& of_column) {
    const std::int64_t K = head_.K;
    WithoutRounding<Run> plain;
    row_sums_.resize(row_gradients.size()), column_sums_.resize(column_gradients.size());
    for (std::size_t r = 0; r < row_gradients.size(); ++r) row_sums_[r].start(*run_, *row_gradients[r]);
    for (std::size_t r = 0; r < column_gradients.size(); ++r) column_sums_[r].start(*run_, *column_gradients[r]);
    gate_sums_.start(*run_, gate_);
    for (bool exclusive : {false, true}) {
      if (std::none_of(rows.begin(), rows.end(), [&](const ScoreRows& r) { return r.exclusive == exclusive; })) continue;
      for_each_frame(f, exclusive, [&](const Frame& frame) {
        for (ScoreRows& r : rows)
          if (r.exclusive == exclusive) fill_rows(f, frame, r);
        for (std::size_t which = 0; which < columns.size(); ++which) {
          fill_columns(f, frame, columns[which]);
          pairs_.read_columns(column_, frame.column_count, frame.pair);
          std::vector<Number>& into_columns = *column_gradients[which];
          for (std::size_t r = 0; r < rows.size(); ++r) {
            if (rows[r].exclusive != exclusive) continue;
            pairs_.read_rows(rows[r].operand, frame.count);
            const auto weight_of = [&](std::int64_t i, std::int64_t j) {
              return weight(r, which, frame.start + i, frame.first_column + j);
            };
            std::vector<Number>& into_rows = *row_gradients[r];
            for (std::int64_t i = 0; i < frame.count; ++i) {
              pairs_.start();
              for (std::int64_t j = 0; Run::draws_pairs && j < frame.width(i, true); ++j) pairs_.add_column(weight_of(i, j), i, j);
              const Range before{0, frame.width(i, true)};
              const auto weight_of_column = [&](std::int64_t j) { return weight_of(i, j); };
              const auto column = [&](std::int64_t j, std::int64_t c) {
                return paired(frame, columns[which].site, column_[at(j, c, K)], rest_of_row(frame, i, c), i, j, c);
              };
              row_sums_[r].add(
                  *run_, into_rows, at(frame.start + i, 0, K), K, before, [&](std::int64_t c) { return row_decay(f, frame, i, c); },
                  weight_of_column, column);
              // an exclusive row holds the sums of log decay up to the token before
              const std::int64_t t = frame.start + i, decays = rows[r].exclusive ? t - 1 : t;
              if (before.end > 0)
                gate_sums_.add(
                    *run_, gate_, at(decays, 0, K), K, before, [&](std::int64_t c) { return row_decay(f, frame, i, c) * of_row(r, t, c); },
                    weight_of_column, column);
              multiply(
                  plain, 1, [K](std::int64_t) { return K; }, [&](std::int64_t, std::int64_t) { return before; },
                  [](std::int64_t, std::int64_t) { return Number{}; }, [&](std::int64_t, std::int64_t j) { return weight_of_column(j); },
                  column,
                  [&](std::int64_t, std::int64_t c, Number x) {
                    const Number sum = row_decay(f, frame, i, c) * pairs_.of_sum(*run_, x, c);
                    into_rows[at(t, c, K)] += sum;
                    if constexpr (Run::records)
                      if (before.end > 0) gate_[at(decays, c, K)] += sum * of_row(r, t, c);
                  });
            }
            for (std::int64_t j = 0; j < frame.column_count; ++j) {
              const std::int64_t below = frame.diagonal() ? j + 1 : 0;
              pairs_.start();
              for (std::int64_t i = below; Run::draws_pairs && i < frame.count; ++i) pairs_.add_row(weight_of(i, j), i, j);
              const Range after{below, frame.count};
              const auto weight_of_row = [&](std::int64_t i) { return weight_of(i, j); };
              const auto row = [&](std::int64_t i, std::int64_t c) {
                return paired(frame, rows[r].site, rows[r].operand[at(i, c, K)], rest_of_column(frame, j, c), i, j, c);
              };
              column_sums_[which].add(
                  *run_, into_columns, at(frame.first_column + j, 0, K), K, after,
                  [&](std::int64_t c) { return column_decay(f, frame, j, c); }, weight_of_row, row);
              const std::int64_t t = frame.first_column + j;
              gate_sums_.add(
                  *run_, gate_, at(t, 0, K), K, after,
                  [&](std::int64_t c) { return -(column_decay(f, frame, j, c) * of_column(which, t, c)); }, weight_of_row, row);
              multiply(
                  plain, 1, [K](std::int64_t) { return K; }, [&](std::int64_t, std::int64_t) { return after; },
                  [](std::int64_t, std::int64_t) { return Number{}; }, [&](std::int64_t, std::int64_t i) { return weight_of_row(i); }, row,
                  [&](std::int64_t, std::int64_t c, Number x) {
                    const Number sum = column_decay(f, frame, j, c) * pairs_.of_sum(*run_, x, c);
                    into_columns[at(t, c, K)] += sum;
                    if constexpr (Run::records) gate_[at(t, c, K)] -= sum * of_column(which, t, c);
                  });
            }
          }
        }
      });
    }
    for (std::size_t r = 0; r < row_gradients.size(); ++r) row_sums_[r].finish(*run_, *row_gradients[r]);
    for (std::size_t r = 0; r < column_gradients.size(); ++r) column_sums_[r].finish(*run_, *column_gradients[r]);
  }

  /// Adds to `own`, dG without the chunk's end, what it errs by as one running number per token and channel.
  void settle_gate(std::vector<Number>& own) {
    if constexpr (Run::records)
      gate_sums_.finish(*run_, gate_);
    else
      gate_sums_.finish(*run_, own);
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

  /// A product and an addition in fp32; next to coarse operands they do not show.
  Number settled(Number x) { return roundings_.coarse ? x : run_->round(roundings_.gradient_step, Site::gradient, x); }

  /// store(sum over c < count of a(c) b(c))
  template <class A, class B, class Store> void inner(std::int64_t count, A&& a, B&& b, Store&& store) {
    multiply(
        *run_, 1, [](std::int64_t) { return std::int64_t{1}; },
        [count](std::int64_t, std::int64_t) {
          return Range{0, count};
        },
        [](std::int64_t, std::int64_t) { return Number{}; }, [&](std::int64_t, std::int64_t c) { return a(c); },
        [&](std::int64_t c, std::int64_t) { return b(c); }, [&](std::int64_t, std::int64_t, Number x) { store(x); });
  }

  /// The same of fp32 numbers that no operand format rounds: every addition rounds on its own, under coarse contracts too.
  template <class A, class B, class Store> void inner_of_singles(std::int64_t count, A&& a, B&& b, Store&& store) {
    if (roundings_.accumulates) return inner(count, a, b, store);
    Number sum{};
    for (std::int64_t c = 0; c < count; ++c) sum = run_->round(roundings_.gradient_step, Site::gate_terms, sum + a(c) * b(c));
    store(sum);
  }

  /// A [rows, K] matrix times the state as an operand, on top of start(i, j).
  template <class Start, class Store> void times_state(const std::vector<Number>& matrix, std::int64_t rows, Start&& start, Store&& store) {
    const std::int64_t K = head_.K, V = head_.V;
    multiply(
        *run_, rows, [V](std::int64_t) { return V; },
        [K](std::int64_t, std::int64_t) {
          return Range{0, K};
        },
        start, [&](std::int64_t i, std::int64_t c) { return matrix[at(i, c, K)]; },
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
          grown(error + run_->absolute_error(Site::exponential, sum + error, roundings_.exponential + 0x1p-24 * std::abs(sum)));
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

  std::vector<Number> state_, state_operand_, next_state_; ///< [K,V]
  std::vector<Number> triangle_, inverse_;                 ///< [n,n] L, T
  std::vector<Number> column_;
  PairErrors<Run> pairs_;
  std::vector<PairSums<Run>> row_sums_, column_sums_;
  PairSums<Run> gate_sums_;
  std::vector<Number> gate_; ///< [n,K] dG as it grows in a run that records
};

} // namespace kdacheck
