#pragma once
// Where the rows of a sequence lie.

#include "../host/arguments.hpp"
#include "warp.cuh"

namespace kdacheck::cuda {

/// Where one sequence lies.
struct Span {
  std::int64_t batch, first, length;
};

__device__ __forceinline__ Span span_of(const ForwardArguments& args, std::int64_t n) {
  if (args.cu_seqlens == nullptr) return {n, 0, args.T};
  // Clamped, so that values changed after the host's check cannot lead outside the tensors.
  std::int64_t first = args.cu_seqlens[n], last = args.cu_seqlens[n + 1];
  first = first < 0 ? 0 : (first > args.T ? args.T : first);
  last = last < first ? first : (last > args.T ? args.T : last);
  return {0, first, last - first};
}

/// Channels of a key. A kernel has room for K; one that is `narrow` takes calls of fewer, a multiple of 16: channels from there on
/// are zero, with a decay of 1, and are neither read from memory nor written to it.
template <int K, bool narrow> __device__ __forceinline__ int channels_of(const ForwardArguments& args) { return narrow ? args.K : K; }

/// Element offset of row t of a head.
__device__ __forceinline__ std::int64_t row_of(const View& view, std::int64_t batch, std::int64_t token, std::int64_t head) {
  return batch * view.batch + token * view.token + head * view.head;
}

} // namespace kdacheck::cuda
