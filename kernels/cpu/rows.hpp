#pragma once
// Rows of a tensor as padded fp32 rows, and back.

#include "../../reference/problem.hpp"
#include "../../reference/tensor.hpp"
#include "../kernel.hpp"

namespace kdacheck::cpu {

/// Sequence n of a call. `first` counts rows b T + t.
Sequence sequence_of(const Inputs&, std::int64_t n);

/// Longest sequence of a call.
std::int64_t longest_sequence(const Inputs&);

/// Element offset of [b, t, head, 0] for the row b T + t of a [B,T,heads,...] tensor.
inline std::int64_t row_offset(const TensorView& view, const Shape& shape, std::int64_t row, std::int64_t head) {
  return view.offset(row / shape.T, row % shape.T, head);
}

/// Copies `count` rows [row + i, head, :] of width shape[3] into to[i, 0 .. padded width), zeros behind.
void read_rows(const TensorView&, const Shape&, std::int64_t row, std::int64_t head, std::int64_t count, float* to);

/// Rounds `count` padded rows to the view's format and writes them to [row + i, head, :].
void write_rows(const TensorView&, const Shape&, std::int64_t row, std::int64_t head, std::int64_t count, const float* from);

/// Reads state [n, head] into to[padded K][padded V], zeros in the padding; zero if the view is absent.
void read_state(const TensorView&, bool v_first, std::int64_t n, std::int64_t head, std::int64_t K, std::int64_t V, float* to);

/// Writes from[padded K][padded V] to state [n, head]; nothing if the view is absent.
void write_state(const TensorView&, bool v_first, std::int64_t n, std::int64_t head, std::int64_t K, std::int64_t V, const float* from);

/// x / sqrt(sum x^2 + 1e-6) for each padded row in place; 1 / sqrt(...) goes to inverse[i] unless that is null.
void normalise_rows(float* rows, std::int64_t count, std::int64_t width, double* inverse);

/// Gradient through normalise_rows: rows hold the normalised x, d the cotangents, overwritten by those of the raw x.
void normalise_rows_backward(const float* rows, const double* inverse, std::int64_t count, std::int64_t width, float* d);

} // namespace kdacheck::cpu
