#include "operand.hpp"

#include <algorithm>
#include <cmath>

namespace kdacheck::cpu {
namespace {

/// Power of two that brings the largest finite magnitude into [2^14, 2^15), half the largest exponent of fp16 spared.
float fp16_scale(const float* numbers, std::int64_t count) {
  float largest = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const float magnitude = std::fabs(numbers[i]);
    largest = magnitude > largest ? magnitude : largest; // a NaN is passed over and stays a NaN below
  }
  if (largest == 0 || std::isinf(largest)) return 1;
  const int exponent = std::ilogb(largest);
  const int shift = 14 - exponent;
  return std::ldexp(1.0f, shift > 126 ? 126 : shift); // tiny rows: the scale and its inverse stay normal
}

} // namespace

void round_operand(OperandFormat operand, float* numbers, std::int64_t count) {
  switch (operand.format) {
  case Format::bf16:
    for (std::int64_t i = 0; i < count; ++i) numbers[i] = round_bf16(numbers[i]);
    return;
  case Format::tf32:
    if (operand.truncate)
      for (std::int64_t i = 0; i < count; ++i) numbers[i] = truncate_tf32(numbers[i]);
    else
      for (std::int64_t i = 0; i < count; ++i) numbers[i] = round_tf32(numbers[i]);
    return;
  case Format::fp16: {
    const float scale = fp16_scale(numbers, count), back = 1 / scale;
    for (std::int64_t i = 0; i < count; ++i) numbers[i] = round_fp16(numbers[i] * scale) * back;
    return;
  }
  default: return;
  }
}

void round_rows(OperandFormat operand, float* numbers, std::int64_t rows, std::int64_t width) {
  if (operand.format != Format::fp16) return round_operand(operand, numbers, rows * width);
  for (std::int64_t i = 0; i < rows; ++i) round_operand(operand, numbers + i * width, width);
}

const float* rounded_copy(OperandFormat operand, const float* numbers, std::int64_t count, float* copy) {
  if (operand.format == Format::fp32) return numbers;
  std::copy(numbers, numbers + count, copy);
  round_operand(operand, copy, count);
  return copy;
}

} // namespace kdacheck::cpu
