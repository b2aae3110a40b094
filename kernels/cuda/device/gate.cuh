#pragma once
// Log decay and beta from what the caller stores.

#include "../host/arguments.hpp"
#include "warp.cuh"

#include <cmath>

namespace kdacheck::cuda {

inline constexpr float log2_e = 1.4426950408889634f;

/// 2^x, x <= 0, also where that is less than 2^-126, as exact as exp2_approximate: a state that decays as a whole is not flushed to 0.
__device__ __forceinline__ float exp2_gradual(float x) {
  return x < -100.0f ? exp2_approximate(x + 64.0f) * 0x1p-64f : exp2_approximate(x); // the sum is exact
}

/// The bits of a stored number, not yet waited for.
__device__ __forceinline__ std::uint32_t load_bits(const void* data, std::int64_t offset, Stored format) {
  if (format == Stored::fp32) return static_cast<const std::uint32_t*>(data)[offset];
  return static_cast<const std::uint16_t*>(data)[offset];
}
__device__ __forceinline__ float number_of(std::uint32_t bits, Stored format) {
  if (format == Stored::fp32) return bits_as_float(bits);
  return format == Stored::bf16 ? unpack_bf16(bits).x : unpack_fp16(bits).x;
}
/// A stored number as fp32.
__device__ __forceinline__ float load_number(const void* data, std::int64_t offset, Stored format) {
  return number_of(load_bits(data, offset, format), format);
}

/// Rounds to nearest and stores.
__device__ __forceinline__ void store_number(void* data, std::int64_t offset, float x, Stored format) {
  if (format == Stored::fp32)
    static_cast<float*>(data)[offset] = x;
  else
    static_cast<std::uint16_t*>(data)[offset] = static_cast<std::uint16_t>(format == Stored::bf16 ? pack_bf16(x, 0) : pack_fp16(x, 0));
}

/// ln(1 + e^x), small relative error at both ends.
__device__ __forceinline__ float softplus(float x) { return fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x))); }

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

/// Natural-log decay of one channel. growth = exp(A_log).
__device__ __forceinline__ float log_decay(Gate gate, float x, float bias, float growth, float lower_bound) {
  switch (gate) {
  case Gate::log_decay: return x;
  case Gate::softplus: return -growth * softplus(x + bias);
  case Gate::bounded: return lower_bound * sigmoid(growth * (x + bias));
  case Gate::sigmoid: return -softplus(-x);
  default: return 0.0f;
  }
}

/// The bounded gate in units of log2, through exp2 and a reciprocal: a few ulp of the result, whose absolute size is what
/// matters for a slow decay.
__device__ __forceinline__ float log2_decay_bounded(float x, float bias, float growth_log2, float bound_log2) {
  return bound_log2 * reciprocal_approximate(1.0f + exp2_approximate(-growth_log2 * (x + bias)));
}

__device__ __forceinline__ float step_size(Beta form, float x) {
  if (form == Beta::value) return x;
  return sigmoid(x) * (form == Beta::twice_sigmoid ? 2.0f : 1.0f);
}

/// s (1 - s) of s = sigmoid(x), without cancellation.
__device__ __forceinline__ float sigmoid_slope(float x) {
  const float e = expf(-fabsf(x)), d = 1.0f + e;
  return e / (d * d);
}

__device__ __forceinline__ float step_slope(Beta form, float x) {
  if (form == Beta::value) return 1.0f;
  return sigmoid_slope(x) * (form == Beta::twice_sigmoid ? 2.0f : 1.0f);
}

/// Derivatives of a natural-log decay.
struct DecaySlope {
  float along_x, along_A_log;
};
__device__ __forceinline__ DecaySlope decay_slope(Gate gate, float x, float bias, float growth, float lower_bound) {
  switch (gate) {
  case Gate::log_decay: return {1.0f, 0.0f};
  case Gate::softplus: return {-growth * sigmoid(x + bias), -growth * softplus(x + bias)};
  case Gate::bounded: {
    const float z = growth * (x + bias), bend = lower_bound * sigmoid_slope(z);
    return bend == 0.0f ? DecaySlope{0.0f, 0.0f} : DecaySlope{bend * growth, bend * z}; // z may be infinite
  }
  case Gate::sigmoid: return {sigmoid(-x), 0.0f};
  default: return {0.0f, 0.0f};
  }
}

/// Gate::bounded through exp2 and a reciprocal, a few ulp of each.
__device__ __forceinline__ DecaySlope bounded_slope(float x, float bias, float growth, float lower_bound) {
  const float z = growth * (x + bias), e = exp2_gradual(-fabsf(z) * log2_e), r = reciprocal_approximate(1.0f + e);
  const float bend = lower_bound * (e * r * r);
  return bend == 0.0f ? DecaySlope{0.0f, 0.0f} : DecaySlope{bend * growth, bend * z}; // z may be infinite
}

/// The nearest finite number of a format; NaN stays NaN. A gate with a huge rate has slopes beyond it.
__device__ __forceinline__ float within(Stored format, float x) {
  const float most = format == Stored::fp16 ? 65504.0f : 3.38e38f;
  return x > most ? most : x < -most ? -most : x;
}

} // namespace kdacheck::cuda
