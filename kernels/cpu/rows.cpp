#include "rows.hpp"

#include "lanes.hpp"

#include <algorithm>
#include <cmath>

namespace kdacheck::cpu {
namespace {

template <class Stored, class Decode> void read_row(const void* data, std::int64_t offset, std::int64_t width, float* to, Decode decode) {
  const auto* from = static_cast<const unsigned char*>(data) + offset * static_cast<std::int64_t>(sizeof(Stored));
  for (std::int64_t c = 0; c < width; ++c) {
    Stored stored;
    std::memcpy(&stored, from + c * static_cast<std::int64_t>(sizeof(Stored)), sizeof stored);
    to[c] = decode(stored);
  }
}

void read_row(const TensorView& view, std::int64_t offset, std::int64_t width, float* to) {
  switch (view.format) {
  case Format::bf16:
    return read_row<std::uint16_t>(view.data, offset, width, to,
                                   [](std::uint16_t half) { return std::bit_cast<float>(static_cast<std::uint32_t>(half) << 16); });
  case Format::fp16: return read_row<_Float16>(view.data, offset, width, to, [](_Float16 half) { return static_cast<float>(half); });
  case Format::fp64: return read_row<double>(view.data, offset, width, to, [](double wide) { return static_cast<float>(wide); });
  default: return read_row<float>(view.data, offset, width, to, [](float single) { return single; });
  }
}

template <class Stored, class Encode>
void write_row(void* data, std::int64_t offset, std::int64_t width, const float* from, Encode encode) {
  auto* to = static_cast<unsigned char*>(data) + offset * static_cast<std::int64_t>(sizeof(Stored));
  for (std::int64_t c = 0; c < width; ++c) {
    const Stored stored = encode(from[c]);
    std::memcpy(to + c * static_cast<std::int64_t>(sizeof(Stored)), &stored, sizeof stored);
  }
}

void write_row(const TensorView& view, std::int64_t offset, std::int64_t width, const float* from) {
  switch (view.format) {
  case Format::bf16:
    return write_row<std::uint16_t>(view.data, offset, width, from,
                                    [](float x) { return static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(round_bf16(x)) >> 16); });
  case Format::fp16: return write_row<_Float16>(view.data, offset, width, from, [](float x) { return static_cast<_Float16>(x); });
  case Format::fp64: return write_row<double>(view.data, offset, width, from, [](float x) { return static_cast<double>(x); });
  case Format::tf32: return write_row<float>(view.data, offset, width, from, [](float x) { return round_tf32(x); });
  default: return write_row<float>(view.data, offset, width, from, [](float x) { return x; });
  }
}

} // namespace

Sequence sequence_of(const Inputs& inputs, std::int64_t n) {
  if (inputs.cu_seqlens.empty()) return {n, n * inputs.shape.T, inputs.shape.T};
  const std::int64_t first = inputs.cu_seqlens[static_cast<std::size_t>(n)];
  return {n, first, inputs.cu_seqlens[static_cast<std::size_t>(n) + 1] - first};
}

std::int64_t longest_sequence(const Inputs& inputs) {
  std::int64_t longest = 0;
  for (std::int64_t n = 0; n < inputs.N(); ++n) longest = std::max(longest, sequence_of(inputs, n).length);
  return longest;
}

void read_rows(const TensorView& view, const Shape& shape, std::int64_t row, std::int64_t head, std::int64_t count, float* to) {
  const std::int64_t width = view.shape[3], stride = padded(width);
  for (std::int64_t i = 0; i < count; ++i, to += stride) {
    read_row(view, row_offset(view, shape, row + i, head), width, to);
    std::fill(to + width, to + stride, 0.0f);
  }
}

void write_rows(const TensorView& view, const Shape& shape, std::int64_t row, std::int64_t head, std::int64_t count, const float* from) {
  const std::int64_t width = view.shape[3], stride = padded(width);
  for (std::int64_t i = 0; i < count; ++i) write_row(view, row_offset(view, shape, row + i, head), width, from + i * stride);
}

void read_state(const TensorView& view, bool v_first, std::int64_t n, std::int64_t head, std::int64_t K, std::int64_t V, float* to) {
  std::fill(to, to + padded(K) * padded(V), 0.0f);
  if (!view) return;
  for (std::int64_t c = 0; c < K; ++c)
    if (v_first)
      for (std::int64_t j = 0; j < V; ++j) to[c * padded(V) + j] = load(view, view.offset(n, head, j, c));
    else
      read_row(view, view.offset(n, head, c), V, to + c * padded(V));
}

void write_state(const TensorView& view, bool v_first, std::int64_t n, std::int64_t head, std::int64_t K, std::int64_t V,
                 const float* from) {
  if (!view) return;
  for (std::int64_t c = 0; c < K; ++c)
    if (v_first)
      for (std::int64_t j = 0; j < V; ++j) kdacheck::store(view, view.offset(n, head, j, c), from[c * padded(V) + j]);
    else
      write_row(view, view.offset(n, head, c), V, from + c * padded(V));
}

void normalise_rows(float* rows, std::int64_t count, std::int64_t width, double* inverse) {
  for (std::int64_t i = 0; i < count; ++i) {
    float* row = rows + i * padded(width);
    double square = 0; // in fp64: |x| up to the largest fp32 number squares without overflow
    for (std::int64_t c = 0; c < width; ++c) square += static_cast<double>(row[c]) * row[c];
    const double factor = 1 / std::sqrt(square + 1e-6);
    for (std::int64_t c = 0; c < width; ++c) row[c] = static_cast<float>(row[c] * factor);
    if (inverse) inverse[i] = factor;
  }
}

void normalise_rows_backward(const float* rows, const double* inverse, std::int64_t count, std::int64_t width, float* d) {
  for (std::int64_t i = 0; i < count; ++i, rows += padded(width), d += padded(width)) {
    double along = 0;
    for (std::int64_t c = 0; c < width; ++c) along += static_cast<double>(rows[c]) * d[c];
    for (std::int64_t c = 0; c < width; ++c) d[c] = static_cast<float>(inverse[i] * (d[c] - along * rows[c]));
  }
}

} // namespace kdacheck::cpu
