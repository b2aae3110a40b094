#pragma once
// Decayed inner products inside a chunk, sum_c x_ic y_jc e^{R_ic - G_jc} for j before i, by secondary chunking.
//
// Blocks of 16 rows. Between two blocks the exponent is split at the last row A before the later one,
// e^{R_i - A} e^{A - G_j}: both factors are decays, never growth, and A lies in the past of row i. Inside a block each
// pair has its own exponent, in fp32.

#include "arena.hpp"
#include "operand.hpp"

#include <array>
#include <cstdint>

namespace kdacheck::cpu {

inline constexpr std::int64_t score_block = 16;

/// Rows of one kind: x [n, padded K] and its log decay R [n, padded K], at most G_{i-1} + 0 for strict ones.
struct ScoreRows {
  const float *x = nullptr, *decay = nullptr;
  bool diagonal = false; ///< j = i takes part (then R = G)
};

/// What score products need besides the rows: sizes, the columns' log decay, scratch.
struct ScoreFrame {
  std::int64_t n = 0, width = 0; ///< rows; padded K
  std::int64_t matrix_row = 0;   ///< stride of score matrices
  const float* G = nullptr;      ///< [n, width] inclusive sums of log decay
  float* left = nullptr;         ///< [2 * 16, width]
  float* panel = nullptr;        ///< [2 * matrix_row, width]
  float* turned = nullptr;       ///< [width, matrix_row]
  OperandFormat format;
};

/// Frame of a chunk of at most `matrix_row` rows with its scratch.
ScoreFrame take_score_frame(Arena&, OperandFormat, std::int64_t matrix_row, std::int64_t width, const float* G);

inline constexpr std::size_t score_kinds = 2; ///< at most this many kinds of rows, and of columns

/// matrix[r][c] (i, j) for each kind of rows and columns, j <= i or j < i; nothing else of the matrices is written.
struct ScoreMatrices {
  std::array<std::array<float*, score_kinds>, score_kinds> matrix{};
};

void scores(const ScoreFrame&, std::int64_t row_kinds, const std::array<ScoreRows, score_kinds>& rows, std::int64_t column_kinds,
            const std::array<const float*, score_kinds>& columns, const ScoreMatrices& into);

/// Adds the gradients of the scores' strictly lower parts to d_rows and d_columns [n, width]; the diagonal is left to the
/// caller, as it has no decay.
void scores_backward(const ScoreFrame&, std::int64_t row_kinds, const std::array<ScoreRows, score_kinds>& rows, std::int64_t column_kinds,
                     const std::array<const float*, score_kinds>& columns, const ScoreMatrices& d,
                     const std::array<float*, score_kinds>& d_rows, const std::array<float*, score_kinds>& d_columns);

} // namespace kdacheck::cpu
