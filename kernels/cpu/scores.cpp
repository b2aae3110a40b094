#include "scores.hpp"

#include "lanes.hpp"
#include "product.hpp"

#include <algorithm>

namespace kdacheck::cpu {
namespace {

/// to[i] = x[i] e^{R_i - anchor}, rounded, for `count` rows.
void decay_rows(const ScoreFrame& frame, const float* x, const float* R, const float* anchor, std::int64_t count, float* to) {
  for (std::int64_t i = 0; i < count; ++i)
    for (std::int64_t c = 0; c < frame.width; c += lane_count) {
      const std::int64_t at = i * frame.width + c;
      store(to + at, load(x + at) * exp_of(load(R + at) - load(anchor + c)));
    }
  round_rows(frame.format, to, count, frame.width);
}

/// to[j] = e^{anchor - G_j} for `count` rows from the first.
void anchor_factors(const ScoreFrame& frame, const float* anchor, std::int64_t count, float* to) {
  for (std::int64_t j = 0; j < count; ++j)
    for (std::int64_t c = 0; c < frame.width; c += lane_count)
      store(to + j * frame.width + c, exp_of(load(anchor + c) - load(frame.G + j * frame.width + c)));
}

void multiply_rows(const float* x, const float* factors, std::int64_t count, float* to) {
  for (std::int64_t at = 0; at < count; at += lane_count) store(to + at, load(x + at) * load(factors + at));
}

/// Scores of row i with the columns of its own block; `kinds` columns at once share the decay.
template <int row_kinds, int column_kinds>
void pair_scores(const ScoreFrame& frame, const std::array<ScoreRows, score_kinds>& rows, int first_kind,
                 const std::array<const float*, score_kinds>& columns, const ScoreMatrices& into, std::int64_t block, std::int64_t i) {
  const float* R = rows[static_cast<std::size_t>(first_kind)].decay + i * frame.width;
  for (std::int64_t j = block; j <= i; ++j) {
    Lanes sums[row_kinds][column_kinds]{};
    for (std::int64_t c = 0; c < frame.width; c += lane_count) {
      const std::int64_t at = j * frame.width + c;
      const Lanes decay = j < i ? exp_of(load(R + c) - load(frame.G + at)) : broadcast(1.0f);
      Lanes decayed[column_kinds];
      for (int y = 0; y < column_kinds; ++y) decayed[y] = decay * load(columns[static_cast<std::size_t>(y)] + at);
      for (int x = 0; x < row_kinds; ++x) {
        const Lanes row = load(rows[static_cast<std::size_t>(first_kind + x)].x + i * frame.width + c);
        for (int y = 0; y < column_kinds; ++y) sums[x][y] = multiply_add(row, decayed[y], sums[x][y]);
      }
    }
    for (int x = 0; x < row_kinds; ++x) {
      const auto kind = static_cast<std::size_t>(first_kind + x);
      if (j == i && !rows[kind].diagonal) continue;
      for (int y = 0; y < column_kinds; ++y) into.matrix[kind][static_cast<std::size_t>(y)][i * frame.matrix_row + j] = sum(sums[x][y]);
    }
  }
}

template <int column_kinds>
void block_scores(const ScoreFrame& frame, std::int64_t row_kinds, const std::array<ScoreRows, score_kinds>& rows,
                  const std::array<const float*, score_kinds>& columns, const ScoreMatrices& into, std::int64_t block, std::int64_t count) {
  const bool shared = row_kinds == 2 && rows[0].decay == rows[1].decay;
  for (std::int64_t i = block; i < block + count; ++i) {
    if (shared) {
      pair_scores<2, column_kinds>(frame, rows, 0, columns, into, block, i);
    } else {
      for (int kind = 0; kind < row_kinds; ++kind) pair_scores<1, column_kinds>(frame, rows, kind, columns, into, block, i);
    }
  }
}

/// Adds the gradients of row i's scores with the earlier rows of its own block.
template <int row_kinds, int column_kinds>
void pair_scores_backward(const ScoreFrame& frame, const std::array<ScoreRows, score_kinds>& rows, int first_kind,
                          const std::array<const float*, score_kinds>& columns, const ScoreMatrices& d,
                          const std::array<float*, score_kinds>& d_rows, const std::array<float*, score_kinds>& d_columns,
                          std::int64_t block, std::int64_t i) {
  const float* R = rows[static_cast<std::size_t>(first_kind)].decay + i * frame.width;
  for (std::int64_t j = block; j < i; ++j) {
    float weight[row_kinds][column_kinds];
    for (int x = 0; x < row_kinds; ++x)
      for (int y = 0; y < column_kinds; ++y)
        weight[x][y] = d.matrix[static_cast<std::size_t>(first_kind + x)][static_cast<std::size_t>(y)][i * frame.matrix_row + j];
    for (std::int64_t c = 0; c < frame.width; c += lane_count) {
      const std::int64_t row_at = i * frame.width + c, at = j * frame.width + c;
      const Lanes decay = exp_of(load(R + c) - load(frame.G + at));
      for (int x = 0; x < row_kinds; ++x) {
        float* d_row = d_rows[static_cast<std::size_t>(first_kind + x)] + row_at;
        const Lanes decayed = decay * load(rows[static_cast<std::size_t>(first_kind + x)].x + row_at);
        for (int y = 0; y < column_kinds; ++y) {
          float* d_column = d_columns[static_cast<std::size_t>(y)] + at;
          const Lanes factor = broadcast(weight[x][y]);
          store(d_row, multiply_add(factor, decay * load(columns[static_cast<std::size_t>(y)] + at), load(d_row)));
          store(d_column, multiply_add(factor, decayed, load(d_column)));
        }
      }
    }
  }
}

template <int column_kinds>
void block_scores_backward(const ScoreFrame& frame, std::int64_t row_kinds, const std::array<ScoreRows, score_kinds>& rows,
                           const std::array<const float*, score_kinds>& columns, const ScoreMatrices& d,
                           const std::array<float*, score_kinds>& d_rows, const std::array<float*, score_kinds>& d_columns,
                           std::int64_t block, std::int64_t count) {
  const bool shared = row_kinds == 2 && rows[0].decay == rows[1].decay;
  for (std::int64_t i = block; i < block + count; ++i) {
    if (shared) {
      pair_scores_backward<2, column_kinds>(frame, rows, 0, columns, d, d_rows, d_columns, block, i);
    } else {
      for (int kind = 0; kind < row_kinds; ++kind)
        pair_scores_backward<1, column_kinds>(frame, rows, kind, columns, d, d_rows, d_columns, block, i);
    }
  }
}

} // namespace

ScoreFrame take_score_frame(Arena& arena, OperandFormat format, std::int64_t matrix_row, std::int64_t width, const float* G) {
  return {.width = width,
          .matrix_row = matrix_row,
          .G = G,
          .left = arena.floats(2 * score_block * width),
          .panel = arena.floats(2 * matrix_row * width),
          .turned = arena.floats(matrix_row * width),
          .format = format};
}

void scores(const ScoreFrame& frame, std::int64_t row_kinds, const std::array<ScoreRows, score_kinds>& rows, std::int64_t column_kinds,
            const std::array<const float*, score_kinds>& columns, const ScoreMatrices& into) {
  const std::int64_t width = frame.width;
  for (std::int64_t block = 0; block < frame.n; block += score_block) {
    const std::int64_t count = std::min(score_block, frame.n - block);
    if (block > 0) {
      const float* anchor = frame.G + (block - 1) * width;
      for (std::int64_t kind = 0; kind < row_kinds; ++kind) {
        const ScoreRows& row = rows[static_cast<std::size_t>(kind)];
        decay_rows(frame, row.x + block * width, row.decay + block * width, anchor, count, frame.left + kind * score_block * width);
      }
      float* factors = frame.panel + frame.matrix_row * width;
      anchor_factors(frame, anchor, block, factors);
      for (std::int64_t column = 0; column < column_kinds; ++column) {
        multiply_rows(columns[static_cast<std::size_t>(column)], factors, block * width, frame.panel);
        round_rows(frame.format, frame.panel, block, width);
        transpose(block, width, frame.panel, width, frame.turned, block);
        for (std::int64_t kind = 0; kind < row_kinds; ++kind)
          product(count, block, width, {frame.left + kind * score_block * width, width, 1}, frame.turned, block, Into::assign,
                  into.matrix[static_cast<std::size_t>(kind)][static_cast<std::size_t>(column)] + block * frame.matrix_row,
                  frame.matrix_row);
      }
    }
    if (column_kinds == 1)
      block_scores<1>(frame, row_kinds, rows, columns, into, block, count);
    else
      block_scores<2>(frame, row_kinds, rows, columns, into, block, count);
  }
}

void scores_backward(const ScoreFrame& frame, std::int64_t row_kinds, const std::array<ScoreRows, score_kinds>& rows,
                     std::int64_t column_kinds, const std::array<const float*, score_kinds>& columns, const ScoreMatrices& d,
                     const std::array<float*, score_kinds>& d_rows, const std::array<float*, score_kinds>& d_columns) {
  const std::int64_t width = frame.width;
  for (std::int64_t block = 0; block < frame.n; block += score_block) {
    const std::int64_t count = std::min(score_block, frame.n - block);
    if (block > 0) {
      const float* anchor = frame.G + (block - 1) * width;
      float* factors = frame.panel + frame.matrix_row * width;
      anchor_factors(frame, anchor, block, factors);
      for (std::int64_t column = 0; column < column_kinds; ++column) {
        const auto y = static_cast<std::size_t>(column);
        // Rows: e^{R_i - A} (.) sum_j d_ij (y_j e^{A - G_j}).
        multiply_rows(columns[y], factors, block * width, frame.panel);
        round_rows(frame.format, frame.panel, block, width);
        for (std::int64_t kind = 0; kind < row_kinds; ++kind) {
          const auto x = static_cast<std::size_t>(kind);
          product(count, width, block, {d.matrix[x][y] + block * frame.matrix_row, frame.matrix_row, 1}, frame.panel, width, Into::assign,
                  frame.left, width);
          for (std::int64_t i = 0; i < count; ++i)
            for (std::int64_t c = 0; c < width; c += lane_count) {
              const std::int64_t at = (block + i) * width + c;
              const Lanes factor = exp_of(load(rows[x].decay + at) - load(anchor + c));
              store(d_rows[x] + at, multiply_add(factor, load(frame.left + i * width + c), load(d_rows[x] + at)));
            }
        }
        // Columns: e^{A - G_j} (.) sum_i d_ij (x_i e^{R_i - A}).
        for (std::int64_t kind = 0; kind < row_kinds; ++kind) {
          const auto x = static_cast<std::size_t>(kind);
          decay_rows(frame, rows[x].x + block * width, rows[x].decay + block * width, anchor, count, frame.left);
          product(block, width, count, {d.matrix[x][y] + block * frame.matrix_row, 1, frame.matrix_row}, frame.left, width,
                  kind == 0 ? Into::assign : Into::add, frame.panel, width);
        }
        for (std::int64_t at = 0; at < block * width; at += lane_count)
          store(d_columns[y] + at, multiply_add(load(factors + at), load(frame.panel + at), load(d_columns[y] + at)));
      }
    }
    if (column_kinds == 1)
      block_scores_backward<1>(frame, row_kinds, rows, columns, d, d_rows, d_columns, block, count);
    else
      block_scores_backward<2>(frame, row_kinds, rows, columns, d, d_rows, d_columns, block, count);
  }
}

} // namespace kdacheck::cpu
