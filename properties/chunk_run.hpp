#pragma once
// The chunkwise form of KDA (design.md section 1) with a rounding at every site where a kernel has one.

#include "chunk_factors.hpp"
#include "perturbed_products.hpp"

#include <cstdint>
#include <vector>

namespace kdacheck {

/// What all chunkwise runs share: the log decay's error inside a chunk, decayed operands, and the score matrices.
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

  const Head& head_;
  const Roundings& roundings_;
  Run* run_ = nullptr;
  std::vector<Number> log_error_; ///< [n,K]
};

template <class Run> class KdaChunkRun : ChunkSites<Run> {
  using Base = ChunkSites<Run>;
  using Base::at, Base::head_, Base::roundings_, Base::run_, Base::log_error_;

public:
  using Number = typename Run::Number;

  using Base::Base;

  const std::vector<Number>& output() const { return output_; } ///< [n,V] of the last chunk

  /// Runs one chunk: `state` [K,V] moves on, output() holds its rows of o.
  void advance(const ChunkFactors& f, Order order, Run& run, std::vector<Number>& state) {
    run_ = &run;
    state_.swap(state);
    this->sum_log_decay(f);
    this->normalise(key_, head_.k, f, Site::key);
    this->normalise(query_, head_.q, f, Site::query);
    decay_operands(f);
    score(f);
    solve(f);
    if (order == Order::wy) {
      update_wy(f);
    } else {
      update_residual_first(f);
    }
    write(f);
    carry(f);
    state_.swap(state);
  }

private:
  void decay_operands(const ChunkFactors& f) {
    const std::int64_t K = head_.K;
    const auto size = static_cast<std::size_t>(f.n * K);
    key_decayed_.resize(size), query_decayed_.resize(size), key_remaining_.resize(size);
    beta_.resize(static_cast<std::size_t>(f.n));
    for (std::int64_t i = 0; i < f.n; ++i) {
      const double beta = head_.beta[static_cast<std::size_t>(f.first + i)];
      const double error = head_.beta_error[static_cast<std::size_t>(f.first + i)];
      beta_[static_cast<std::size_t>(i)] = Number{} + beta;
      if (error > 0) beta_[static_cast<std::size_t>(i)] += run_->absolute_error(Site::beta, beta, error * std::abs(beta));
      for (std::int64_t c = 0; c < K; ++c) {
        const std::size_t entry = at(i, c, K);
        const Number error_in = log_error_[entry], error_out = log_error_[at(f.n - 1, c, K)] - error_in;
        const Number in = this->decayed(f.in[entry], error_in, f.G[entry]);
        const Number out = this->decayed(f.out[entry], error_out, f.G[at(f.n - 1, c, K)] - f.G[entry]);
        key_decayed_[entry] = run_->round(roundings_.operand, Site::key_decayed, key_[entry] * in);
        query_decayed_[entry] = run_->round(roundings_.operand, Site::query_decayed, head_.scale * query_[entry] * in);
        key_remaining_[entry] = run_->round(roundings_.operand, Site::key_remaining, key_[entry] * out);
      }
    }
  }

  /// Akk (times beta: L) and Aqk, block by block.
  void score(const ChunkFactors& f) {
    const std::int64_t n = f.n, K = head_.K;
    triangle_.assign(static_cast<std::size_t>(n * n), Number{});
    scores_.assign(static_cast<std::size_t>(n * n), Number{});
    row_key_.resize(static_cast<std::size_t>(score_block * K)), row_query_.resize(row_key_.size());
    for (std::int64_t block = 0; block < f.blocks(); ++block) {
      const auto b = static_cast<std::size_t>(block);
      const std::int64_t start = block * score_block, rows = std::min(score_block, n - start);
      if (block > 0) {
        column_.resize(static_cast<std::size_t>(start * K));
        fill_rows(f, start, rows, start, f.row);
        for (std::int64_t j = 0; j < start; ++j)
          for (std::int64_t c = 0; c < K; ++c)
            column_[at(j, c, K)] = run_->round(roundings_.score, Site::score_column,
                                               key_[at(j, c, K)] * this->decayed(f.column[b][at(j, c, K)],
                                                                                 log_error_[at(start, c, K)] - log_error_[at(j, c, K)],
                                                                                 f.G[at(start, c, K)] - f.G[at(j, c, K)]));
        const auto all = [&](std::int64_t) { return start; };
        block_scores(start, rows, 0, all, all, nullptr);
      }
      const std::int64_t middle = f.middle(block);
      column_.resize(static_cast<std::size_t>(rows * K));
      fill_rows(f, start, rows, middle, f.middle_row);
      for (std::int64_t j = 0; j < rows; ++j)
        for (std::int64_t c = 0; c < K; ++c) {
          const std::size_t entry = at(start + j, c, K);
          column_[at(j, c, K)] =
              run_->round(roundings_.score, Site::score_column,
                          key_[entry] * this->decayed(f.middle_column[entry], log_error_[at(middle, c, K)] - log_error_[entry],
                                                      f.G[at(middle, c, K)] - f.G[entry]));
        }
      block_scores(
          start, rows, start, [](std::int64_t i) { return i; }, [](std::int64_t i) { return i + 1; },
          f.steep[b] ? f.pair[b].data() : nullptr);
    }
  }

  void fill_rows(const ChunkFactors& f, std::int64_t start, std::int64_t rows, std::int64_t anchor, const std::vector<double>& factor) {
    const std::int64_t K = head_.K;
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t c = 0; c < K; ++c) {
        const std::size_t entry = at(start + i, c, K);
        const Number decay =
            this->decayed(factor[entry], log_error_[entry] - log_error_[at(anchor, c, K)], f.G[entry] - f.G[at(anchor, c, K)]);
        row_key_[at(i, c, K)] = run_->round(roundings_.score, Site::score_row_key, key_[entry] * decay);
        row_query_[at(i, c, K)] = run_->round(roundings_.score, Site::score_row_query, head_.scale * query_[entry] * decay);
      }
  }

  /// Products of the rows at hand with the columns at hand; `pair` holds decays that no anchor could split.
  template <class KeyColumns, class QueryColumns>
  void block_scores(std::int64_t start, std::int64_t rows, std::int64_t first_column, KeyColumns&& key_columns,
                    QueryColumns&& query_columns, const double* pair) {
    const std::int64_t K = head_.K, n = static_cast<std::int64_t>(beta_.size());
    const auto whole = [K](std::int64_t, std::int64_t) { return Range{0, K}; };
    const auto zero = [](std::int64_t, std::int64_t) { return Number{}; };
    const auto product = [&](const std::vector<Number>& row, auto&& columns, auto&& store) {
      if (pair == nullptr) {
        multiply(
            *run_, rows, columns, whole, zero, [&](std::int64_t i, std::int64_t c) { return row[at(i, c, K)]; },
            [&](std::int64_t c, std::int64_t j) { return column_[at(j, c, K)]; }, store);
        return;
      }
      for (std::int64_t i = 0; i < rows; ++i)
        multiply(
            *run_, 1, [&](std::int64_t) { return columns(i); }, whole, zero, [&](std::int64_t, std::int64_t c) { return row[at(i, c, K)]; },
            [&](std::int64_t c, std::int64_t j) { return column_[at(j, c, K)] * pair[at(i * score_block + j, c, K)]; },
            [&](std::int64_t, std::int64_t j, Number x) { store(i, j, x); });
    };
    product(row_key_, key_columns, [&](std::int64_t i, std::int64_t j, Number x) {
      triangle_[at(start + i, first_column + j, n)] =
          run_->round(roundings_.solve, Site::triangle, beta_[static_cast<std::size_t>(start + i)] * x);
    });
    product(row_query_, query_columns, [&](std::int64_t i, std::int64_t j, Number x) {
      scores_[at(start + i, first_column + j, n)] = run_->round(roundings_.operand, Site::scores, x);
    });
  }

  /// T = (I + L)^{-1} by rows, then T as an operand. The diagonal is exactly 1 in any format.
  void solve(const ChunkFactors& f) {
    const std::int64_t n = f.n;
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

  /// U = T beta (V - kd S).
  void update_residual_first(const ChunkFactors& f) {
    const std::int64_t n = f.n, V = head_.V;
    residual_.resize(static_cast<std::size_t>(n * V));
    update_.resize(residual_.size());
    times_state(key_decayed_, n, [&](std::int64_t i, std::int64_t j, Number x) {
      const Number difference = head_.v[at(f.first + i, j, V)] - x;
      residual_[at(i, j, V)] = run_->round(roundings_.operand, Site::residual, beta_[static_cast<std::size_t>(i)] * difference);
    });
    triangular(
        inverse_, residual_, n, V, [](std::int64_t, std::int64_t) { return Number{}; },
        [&](std::int64_t i, std::int64_t j, Number x) { update_[at(i, j, V)] = run_->round(roundings_.operand, Site::update, x); });
  }

  /// W = T (beta kd), U = T (beta V) - W S.
  void update_wy(const ChunkFactors& f) {
    const std::int64_t n = f.n, K = head_.K, V = head_.V;
    const auto zero = [](std::int64_t, std::int64_t) { return Number{}; };
    weighted_.resize(static_cast<std::size_t>(n * K)), wy_key_.resize(weighted_.size());
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t c = 0; c < K; ++c)
        weighted_[at(i, c, K)] =
            run_->round(roundings_.operand, Site::weighted_key, beta_[static_cast<std::size_t>(i)] * key_decayed_[at(i, c, K)]);
    triangular(inverse_, weighted_, n, K, zero,
               [&](std::int64_t i, std::int64_t c, Number x) { wy_key_[at(i, c, K)] = run_->round(roundings_.operand, Site::wy_key, x); });
    weighted_.resize(static_cast<std::size_t>(n * V));
    update_.resize(weighted_.size());
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t j = 0; j < V; ++j)
        weighted_[at(i, j, V)] =
            run_->round(roundings_.operand, Site::weighted_value, beta_[static_cast<std::size_t>(i)] * head_.v[at(f.first + i, j, V)]);
    triangular(inverse_, weighted_, n, V, zero, [&](std::int64_t i, std::int64_t j, Number x) {
      update_[at(i, j, V)] = run_->round(roundings_.operand, Site::wy_value, x);
    });
    times_state(wy_key_, n, [&](std::int64_t i, std::int64_t j, Number x) {
      update_[at(i, j, V)] = run_->round(roundings_.operand, Site::update, update_[at(i, j, V)] - x);
    });
  }

  /// O = qd S + Aqk U.
  void write(const ChunkFactors& f) {
    const std::int64_t n = f.n, V = head_.V;
    output_.resize(static_cast<std::size_t>(n * V));
    times_state(query_decayed_, n, [&](std::int64_t i, std::int64_t j, Number x) { output_[at(i, j, V)] = x; });
    triangular(
        scores_, update_, n, V, [&](std::int64_t i, std::int64_t j) { return output_[at(i, j, V)]; },
        [&](std::int64_t i, std::int64_t j, Number x) { output_[at(i, j, V)] = x; });
  }

  /// S' = Diag(e^{G_C}) S + kr^T U.
  void carry(const ChunkFactors& f) {
    const std::int64_t n = f.n, K = head_.K, V = head_.V;
    whole_.resize(static_cast<std::size_t>(K));
    for (std::int64_t c = 0; c < K; ++c) {
      const Number error = log_error_[at(n - 1, c, K)];
      const double log_decay = f.G[at(n - 1, c, K)];
      const double of_exp = roundings_.exponential + 0x1p-24 * std::abs(log_decay);
      whole_[static_cast<std::size_t>(c)] =
          f.whole[static_cast<std::size_t>(c)] * grow(error + run_->absolute_error(Site::exponential, log_decay + error, of_exp));
    }
    multiply(
        *run_, K, [V](std::int64_t) { return V; },
        [n](std::int64_t, std::int64_t) {
          return Range{0, n};
        },
        [&](std::int64_t c, std::int64_t j) { return whole_[static_cast<std::size_t>(c)] * state_[at(c, j, V)]; },
        [&](std::int64_t c, std::int64_t i) { return key_remaining_[at(i, c, K)]; },
        [&](std::int64_t i, std::int64_t j) { return update_[at(i, j, V)]; },
        [&](std::int64_t c, std::int64_t j, Number x) {
          next_state_.push_back(run_->round(roundings_.state, Site::state, x)), (void)c, (void)j;
        });
    state_.swap(next_state_);
    next_state_.clear();
  }

  std::vector<Number> state_, next_state_, state_operand_, output_;
  std::vector<Number> key_, query_, key_decayed_, query_decayed_, key_remaining_, beta_, whole_;
  std::vector<Number> row_key_, row_query_, column_, triangle_, scores_, inverse_;
  std::vector<Number> residual_, weighted_, wy_key_, update_;
};

} // namespace kdacheck
