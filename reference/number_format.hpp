#pragma once
// Number formats that kernels store and multiply in, and bit-exact rounding to them.

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string_view>

namespace kdacheck {

/// A binary floating-point format. tf32 is an operand format: it is stored in 32 bits.
enum class Format : std::uint8_t { fp64, fp32, tf32, bf16, fp16 };

/// Significand bits, the implicit one included: fp64 53, fp32 24, tf32 and fp16 11, bf16 8.
constexpr int precision(Format format) {
  switch (format) {
  case Format::fp64: return 53;
  case Format::fp32: return 24;
  case Format::bf16: return 8;
  default: return 11;
  }
}

/// Half the distance from 1 to the next number: the largest relative error of one rounding to nearest.
constexpr double unit_roundoff(Format format) { return 1.0 / static_cast<double>(std::uint64_t{1} << precision(format)); }

/// Bytes of one stored element.
constexpr std::size_t storage_bytes(Format format) {
  switch (format) {
  case Format::fp64: return 8;
  case Format::fp32:
  case Format::tf32: return 4;
  default: return 2;
  }
}

/// Exponent of the smallest positive number (subnormals included): fp16 -24, bf16 -133, fp32 and tf32 -149, fp64 -1074.
/// tf32's own subnormal grid is coarser (-136); operands are that small only where nothing depends on them.
constexpr int least_exponent(Format format) {
  switch (format) {
  case Format::fp64: return -1074;
  case Format::fp16: return -24;
  case Format::bf16: return -133;
  case Format::tf32: return -136;
  default: return -149;
  }
}

/// Largest finite number.
constexpr double largest(Format format) {
  switch (format) {
  case Format::fp64: return std::numeric_limits<double>::max();
  case Format::fp16: return 65504.0;
  case Format::bf16: return 0x1.fep127;
  case Format::tf32: return 0x1.ffcp127;
  default: return std::numeric_limits<float>::max();
  }
}

constexpr std::string_view name(Format format) {
  switch (format) {
  case Format::fp64: return "fp64";
  case Format::fp32: return "fp32";
  case Format::tf32: return "tf32";
  case Format::bf16: return "bf16";
  default: return "fp16";
  }
}

/// The format of that name, or nothing.
constexpr std::optional<Format> format_named(std::string_view text) {
  for (Format format : {Format::fp64, Format::fp32, Format::tf32, Format::bf16, Format::fp16})
    if (name(format) == text) return format;
  return std::nullopt;
}

/// Round to nearest, ties to even. NaN stays NaN, overflow gives infinity.
inline float round_bf16(float x) {
  std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u;
  const bool special = (bits & 0x7f800000u) == 0x7f800000u;
  return std::bit_cast<float>(special ? bits : rounded);
}

/// Round to nearest, ties to even, to 10 stored significand bits; exponent range of fp32.
inline float round_tf32(float x) {
  std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t rounded = (bits + 0xfffu + ((bits >> 13) & 1u)) & 0xffffe000u;
  const bool special = (bits & 0x7f800000u) == 0x7f800000u;
  return std::bit_cast<float>(special ? bits : rounded);
}

/// What tensor cores do to an fp32 register that was not rounded before: the low 13 bits are ignored.
inline float truncate_tf32(float x) { return std::bit_cast<float>(std::bit_cast<std::uint32_t>(x) & 0xffffe000u); }

/// Round to nearest, ties to even, subnormals kept, overflow to infinity.
inline float round_fp16(float x) { return static_cast<float>(static_cast<_Float16>(x)); }

/// Round an fp32 number to the format; fp64 and fp32 leave it as it is.
inline float round_to(Format format, float x) {
  switch (format) {
  case Format::bf16: return round_bf16(x);
  case Format::fp16: return round_fp16(x);
  case Format::tf32: return round_tf32(x);
  default: return x;
  }
}

/// Half a unit in the last place of the format at x (x taken as a number of the format): what the last rounding may
/// have added. At zero: half the smallest positive number.
inline double half_ulp(Format format, double x) {
  const int floor_exponent = least_exponent(format);
  if (x == 0 || !std::isfinite(x)) return std::ldexp(1.0, floor_exponent - 1);
  int exponent = 0;
  std::frexp(x, &exponent);
  const int ulp_exponent = exponent - precision(format);
  return std::ldexp(1.0, (ulp_exponent < floor_exponent ? floor_exponent : ulp_exponent) - 1);
}

} // namespace kdacheck
