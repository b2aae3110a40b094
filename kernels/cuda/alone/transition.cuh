#pragma once
// The transition alone, S <- (Diag(d) - a b^T) S + k v^T, one token or a few, in place.
//
// A block owns `columns` value columns of one head's state, and a thread four of them in every sixteenth row: all its 16-byte loads are in
// flight before the first is used, while the block copies the tokens' rows to shared memory. Per token one pass forms p = b^T S, summed
// over threads as one tree whose order is that of the rows, however many columns a block has; a second makes S = d S - a p + k v. One
// barrier a token. Bytes: 8 K V per sequence and head.

#include "../device/gate.cuh"
#include "../device/rows.cuh"
#include "../host/transition_arguments.hpp"

namespace kdacheck::cuda {

/// `columns` of the state in a block, room for K rows.
template <int K, int columns> struct TransitionCut {
  static constexpr int quads = columns / 4, rows_at_once = 16, threads = quads * rows_at_once, warps = threads / 32,
                       rows = K / rows_at_once;
};

/// What a token brings, in shared memory: [T] of these, after the sums [2][warps][columns].
template <int K> struct TransitionToken {
  float d[K], a[K], b[K], k[K];
};

template <int K, int columns> constexpr std::size_t transition_shared_bytes(std::int64_t T) {
  return 2 * TransitionCut<K, columns>::warps * columns * sizeof(float) + static_cast<std::size_t>(T) * sizeof(TransitionToken<K>);
}

/// Four value columns of a row of v.
__device__ __forceinline__ float4 transition_values(const TransitionArguments& args, std::int64_t b, int t, int head, int column) {
  const std::int64_t at = row_of(args.v, b, t, head) + column;
  const auto value = [&](int e) { return load_number(args.v.data, at + e, args.v_format); };
  return {value(0), value(1), value(2), value(3)};
}

/// As a tree: neighbours first.
template <int count> __device__ __forceinline__ float4 sum_of_warps(const float* from, int apart) {
  if constexpr (count == 1) {
    return *reinterpret_cast<const float4*>(from);
  } else {
    const float4 x = sum_of_warps<count / 2>(from, apart), y = sum_of_warps<count / 2>(from + count / 2 * apart, apart);
    return {x.x + y.x, x.y + y.y, x.z + y.z, x.w + y.w};
  }
}

template <int K, int columns> __device__ __forceinline__ void transition_block(const TransitionArguments& args) {
  using Cut = TransitionCut<K, columns>;
  auto* sums = reinterpret_cast<float*>(dynamic_shared());
  auto* tokens = reinterpret_cast<TransitionToken<K>*>(sums + 2 * Cut::warps * columns);
  const int thread = static_cast<int>(thread_index()), lane = thread % 32, warp = thread / 32, quad = thread % Cut::quads,
            first_row = thread / Cut::quads;
  const auto slices = static_cast<unsigned>((args.V + columns - 1) / columns), heads = static_cast<unsigned>(args.HV);
  const int column = static_cast<int>(block_index() % slices) * columns + 4 * quad, head = static_cast<int>(block_index() / slices % heads);
  const std::int64_t b = block_index() / slices / heads, slot = args.slot != nullptr ? args.slot[b] : b;
  if (slot < 0 || slot >= args.slots) return;
  const bool inside = column < args.V, adds = args.k.data != nullptr;
  float* state = args.state + (slot * args.HV + head) * args.K * args.V + column;
  const auto present = [&](int c) { return inside && c < args.K; };
  float4 S[Cut::rows];
#pragma unroll
  for (int m = 0; m < Cut::rows; ++m) {
    const int c = first_row + Cut::rows_at_once * m;
    S[m] = present(c) ? __ldcs(reinterpret_cast<const float4*>(state + static_cast<std::int64_t>(c) * args.V)) : float4{0, 0, 0, 0};
  }
#pragma unroll 1
  for (int e = thread; e < args.T * K; e += Cut::threads) {
    const int t = e / K, c = e % K;
    const auto number = [&](const View& of, Stored format) {
      return c < args.K ? load_number(of.data, row_of(of, b, t, head) + c, format) : 0.0f;
    };
    TransitionToken<K>& token = tokens[t];
    token.d[c] = number(args.d, args.d_format), token.a[c] = number(args.a, args.a_format), token.b[c] = number(args.b, args.b_format);
    token.k[c] = adds ? number(args.k, args.k_format) : 0.0f;
  }
  float4 v = inside && adds ? transition_values(args, b, 0, head, column) : float4{0, 0, 0, 0};
  sync_block();
#pragma unroll 1
  for (int t = 0; t < args.T; ++t) {
    const TransitionToken<K>& token = tokens[t];
    const float4 now = v;
    if (inside && adds && t + 1 < args.T) v = transition_values(args, b, t + 1, head, column);
    float p[4] = {};
#pragma unroll
    for (int m = 0; m < Cut::rows; ++m) {
      const int c = first_row + Cut::rows_at_once * m;
      const float read = token.b[c];
      p[0] = fmaf(read, S[m].x, p[0]), p[1] = fmaf(read, S[m].y, p[1]), p[2] = fmaf(read, S[m].z, p[2]), p[3] = fmaf(read, S[m].w, p[3]);
    }
#pragma unroll
    for (int mask = Cut::quads; mask < 32; mask *= 2)
#pragma unroll
      for (int e = 0; e < 4; ++e) p[e] += shuffle_xor(p[e], mask);
    float* parity = sums + t % 2 * Cut::warps * columns;
    if (lane < Cut::quads) *reinterpret_cast<float4*>(parity + warp * columns + 4 * quad) = {p[0], p[1], p[2], p[3]};
    sync_block();
    const float4 sum = sum_of_warps<Cut::warps>(parity + 4 * quad, columns);
#pragma unroll
    for (int m = 0; m < Cut::rows; ++m) {
      const int c = first_row + Cut::rows_at_once * m;
      const float d = token.d[c], a = token.a[c], k = token.k[c];
      const auto next = [&](float x, float read, float value) {
        const float moved = fmaf(-a, read, d * x);
        return adds ? fmaf(k, value, moved) : moved;
      };
      S[m] = {next(S[m].x, sum.x, now.x), next(S[m].y, sum.y, now.y), next(S[m].z, sum.z, now.z), next(S[m].w, sum.w, now.w)};
    }
  }
#pragma unroll
  for (int m = 0; m < Cut::rows; ++m)
    if (const int c = first_row + Cut::rows_at_once * m; present(c))
      __stcs(reinterpret_cast<float4*>(state + static_cast<std::int64_t>(c) * args.V), S[m]);
}

} // namespace kdacheck::cuda
