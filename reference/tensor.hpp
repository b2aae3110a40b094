#pragma once
// A typed, strided view of memory that somebody else owns.

#include "number_format.hpp"

#include <array>
#include <cstdint>
#include <cstring>

namespace kdacheck {

/// Up to four dimensions, outermost first; unused trailing dimensions have extent 1. Strides count elements.
struct TensorView {
  void* data = nullptr; ///< nullptr: the tensor is absent
  Format format = Format::fp32;
  std::array<std::int64_t, 4> shape{0, 1, 1, 1};
  std::array<std::int64_t, 4> stride{0, 0, 0, 0};

  explicit operator bool() const { return data != nullptr; }
  std::int64_t elements() const { return shape[0] * shape[1] * shape[2] * shape[3]; }
  std::int64_t offset(std::int64_t i, std::int64_t j = 0, std::int64_t l = 0, std::int64_t m = 0) const {
    return i * stride[0] + j * stride[1] + l * stride[2] + m * stride[3];
  }
};

/// Row-major strides of a shape.
constexpr std::array<std::int64_t, 4> contiguous_strides(const std::array<std::int64_t, 4>& shape) {
  return {shape[1] * shape[2] * shape[3], shape[2] * shape[3], shape[3], 1};
}

/// Element at an offset as fp32 (exact for bf16, fp16, fp32, tf32; fp64 is rounded).
inline float load(const TensorView& view, std::int64_t offset) {
  const auto* bytes = static_cast<const unsigned char*>(view.data) + offset * static_cast<std::int64_t>(storage_bytes(view.format));
  switch (view.format) {
  case Format::bf16: {
    std::uint16_t half;
    std::memcpy(&half, bytes, 2);
    return std::bit_cast<float>(static_cast<std::uint32_t>(half) << 16);
  }
  case Format::fp16: {
    _Float16 half;
    std::memcpy(&half, bytes, 2);
    return static_cast<float>(half);
  }
  case Format::fp64: {
    double wide;
    std::memcpy(&wide, bytes, 8);
    return static_cast<float>(wide);
  }
  default: {
    float single;
    std::memcpy(&single, bytes, 4);
    return single;
  }
  }
}

/// Round fp32 to the view's format and store it.
inline void store(const TensorView& view, std::int64_t offset, float value) {
  auto* bytes = static_cast<unsigned char*>(view.data) + offset * static_cast<std::int64_t>(storage_bytes(view.format));
  switch (view.format) {
  case Format::bf16: {
    const auto half = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(round_bf16(value)) >> 16);
    std::memcpy(bytes, &half, 2);
    return;
  }
  case Format::fp16: {
    const auto half = static_cast<_Float16>(value);
    std::memcpy(bytes, &half, 2);
    return;
  }
  case Format::fp64: {
    const double wide = value;
    std::memcpy(bytes, &wide, 8);
    return;
  }
  default: {
    const float single = round_to(view.format, value);
    std::memcpy(bytes, &single, 4);
    return;
  }
  }
}

} // namespace kdacheck
