#pragma once
// Akk and Aqk of a chunk as one 16x16 tile each, in bf16 or, where terms are mixed, tf32: rows k_i e^{G_i} and q_i e^{G_i}, which in bf16
// are the stage's kd and qd, columns k_j e^{-G_j}. G is the sum of log decays since the chunk's beginning, so that columns grow where rows
// fall. Their products are the same e^{G_i - G_j} <= 1, each operand rounded once, whatever its size; what lies above the diagonal may be
// of any size and is left out.
//
// That holds while no channel has fallen below 2^-64: operands are then far from both ends of bf16 and tf32. A token from which on one has
// is *strong*: its rows are made level by level, without a factor above 1 (chunk_scores.cuh). No row asks what comes after its token:
// whether it is strong depends on the tokens up to it, and the tile's numbers are the same beside strong rows.

#include "chunk_scores.cuh"

namespace kdacheck::cuda {

inline constexpr float most_fall = 64; ///< in powers of two

/// How far channels have fallen since the chunk's beginning, token by token.
struct Fall {
  float x = 0, y = 0;
  __device__ __forceinline__ void add(Pair g) { x += fabsf(g.x), y += fabsf(g.y); }
  __device__ __forceinline__ bool strong() const { return !(x <= most_fall && y <= most_fall); }
};

/// Bit i: token i of the chunk is strong. `g`: log2 decays, `sum` of them all; never positive, unless `any_sign`.
__device__ __forceinline__ std::uint32_t strong_tokens(const Pair (&g)[16], Pair sum, bool any_sign) {
  Fall whole{-sum.x, -sum.y};
  if (any_sign) {
    whole = {};
#pragma unroll
    for (int i = 0; i < 16; ++i) whole.add(g[i]);
  }
  if (!any_lane(whole.strong())) return 0;
  std::uint32_t tokens = 0;
  Fall fall;
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    fall.add(g[i]);
    tokens |= fall.strong() ? 1u << i : 0u;
  }
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) tokens |= float_as_bits(shuffle_xor(bits_as_float(tokens), mask));
  return tokens;
}

/// To nearest in 11 bits, so that tensor cores, which cut, cut nothing.
__device__ __forceinline__ float rounded_to_tf32(float x) { return bits_as_float(float_as_bits(x) + 0x1000u); }

/// 16 rows of 64 channels in tf32, each in two parts of 128 bytes, swizzled: channels 0-31 from `first` on, the others `other` bytes
/// further.
struct SplitRows {
  Address first;
  unsigned other, row_bytes;
};

/// Where rows of k and of q lie: 64 channels from `channel` on, of rows of `row_bytes`, swizzled.
struct TileRows {
  Address k, q;
  unsigned channel, row_bytes;
};

/// Both tiles of a chunk as a warp's accumulators: [columns 0-7 | 8-15], lane l has rows l/4 and l/4 + 8, columns 2 (l%4) and 2 (l%4) + 1.
struct Tiles {
  float kk[2][4], qk[2][4];

  /// Adds the products over 64 channels in tf32. `columns`: 16 rows of 256 bytes, fp32, rounded here.
  __device__ __forceinline__ void add_tf32(Address columns, const SplitRows& k, const SplitRows& q, unsigned lane) {
    const unsigned row = lane % 8 + 8 * ((lane / 8) % 2), in_row = ((lane / 16) ^ (row & 7)) * 16;
    const Address of_column = columns + swizzled(lane % 8 + 8 * (lane / 16), 8 * ((lane / 8) % 2), 256);
    const Address of_k = k.first + row * k.row_bytes + in_row, of_q = q.first + row * q.row_bytes + in_row;
    const auto load = [](float(&x)[4], Address at) {
      std::uint32_t words[4];
      load_matrices(words, at);
#pragma unroll
      for (int e = 0; e < 4; ++e) x[e] = bits_as_float(words[e]);
    };
#pragma unroll
    for (int step = 0; step < 8; ++step) {
      float b[4], a[4];
      load(b, steps_further(of_column, step));
#pragma unroll
      for (int e = 0; e < 4; ++e) b[e] = rounded_to_tf32(b[e]);
      load(a, steps_further(of_k, step % 4) + step / 4 * k.other);
      multiply_add_tf32(kk[0], a, b[0], b[1]);
      multiply_add_tf32(kk[1], a, b[2], b[3]);
      load(a, steps_further(of_q, step % 4) + step / 4 * q.other);
      multiply_add_tf32(qk[0], a, b[0], b[1]);
      multiply_add_tf32(qk[1], a, b[2], b[3]);
    }
  }

  /// Adds the products over 64 channels. `columns`: 16 rows of 128 bytes.
  template <bool with_q> __device__ __forceinline__ void add(Address columns, const TileRows& rows, unsigned lane) {
    const unsigned row = lane % 8 + 8 * ((lane / 8) % 2), column = lane % 8 + 8 * (lane / 16);
    const unsigned of_row = swizzled(row, 8 * (lane / 16), rows.row_bytes) + 2 * rows.channel;
    const Address of_column = columns + swizzled(column, 8 * ((lane / 8) % 2), 128);
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      Operand<1> b, a;
      load_matrices(b.word[0], steps_further(of_column, step));
      load_matrices(a.word[0], steps_further(rows.k + of_row, step));
      multiply_add(kk[0], a, b, 0);
      multiply_add(kk[1], a, b, 1);
      if constexpr (with_q) {
        load_matrices(a.word[0], steps_further(rows.q + of_row, step));
        multiply_add(qk[0], a, b, 0);
        multiply_add(qk[1], a, b, 1);
      }
    }
  }

  /// Rows that `rows` names, from `other`.
  template <bool with_q> __device__ __forceinline__ void take(const Tiles& other, std::uint32_t rows, unsigned lane) {
#pragma unroll
    for (int e = 0; e < 8; ++e)
      if (rows >> (lane / 4 + 8 * (e / 2 % 2)) & 1) {
        kk[e / 4][e % 4] = other.kk[e / 4][e % 4];
        if constexpr (with_q) qk[e / 4][e % 4] = other.qk[e / 4][e % 4];
      }
  }

  /// beta_i Akk_ij to L[j][i] (in the sweep of states beta_j Akk_ij; to be stored for both sweeps, that one matrix_bytes further), Aqk as a
  /// tile to the stage.
  template <int pieces, Sweep sweep, class Place>
  __device__ __forceinline__ void store(Address betas, Address diagonal, Address L, Place stage_Aqk, unsigned lane) const {
    const int r = static_cast<int>(lane / 4), c = static_cast<int>(2 * (lane % 4));
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
      for (int upper = 0; upper < 2; ++upper) {
        const int i = r + 8 * upper, j = 8 * half + c;
        const float kk_i[2] = {kk[half][2 * upper], kk[half][2 * upper + 1]};
        if (half <= upper) { // nothing of what lies above the diagonal is read
          const float beta_i = load_shared_float(betas + 4 * i);
          const Pair beta_j = load_shared_pair(betas + 4 * j);
          const bool by_column = sweep == Sweep::states;
          store_shared(L + 4 * (matrix_stride * j + i), (by_column ? beta_j.x : beta_i) * kk_i[0]);
          store_shared(L + 4 * (matrix_stride * (j + 1) + i), (by_column ? beta_j.y : beta_i) * kk_i[1]);
          if constexpr (sweep == Sweep::stored) {
            store_shared(L + matrix_bytes + 4 * (matrix_stride * j + i), beta_j.x * kk_i[0]);
            store_shared(L + matrix_bytes + 4 * (matrix_stride * (j + 1) + i), beta_j.y * kk_i[1]);
          }
        }
        if constexpr (sweep != Sweep::states) {
          const float own = half == upper ? load_shared_float(diagonal + 4 * i) : 0.0f;
          const float x = i > j ? qk[half][2 * upper] : i == j ? own : 0.0f;
          const float y = i > j + 1 ? qk[half][2 * upper + 1] : i == j + 1 ? own : 0.0f;
          store_stage(stage_Aqk + tile_offset(static_cast<unsigned>(i), static_cast<unsigned>(half)) + 2 * static_cast<unsigned>(c),
                      split<pieces>(x, y).word[0]);
        }
      }
  }
};

/// Adds what strong rows have from 64 channels, level by level. `scratch`: 24 rows of 128 bytes.
template <int pieces, bool with_q>
__device__ __forceinline__ void add_strong(Tiles& tiles, Address scratch, const Pair (&k)[16], const Pair (&q)[16], const Pair (&alpha)[16],
                                           std::uint32_t strong, unsigned lane) {
  float levels[4][4] = {};
  add_levels<pieces, with_q>(levels, scratch, k, q, alpha, lane);
  each_wanted(levels, lane, [&](int i, int j, float kk, float qk) {
    store_shared(scratch + 4 * (16 * i + j), kk);
    if constexpr (with_q) store_shared(scratch + 1024 + 4 * (16 * i + j), qk);
  });
  sync_warp();
#pragma unroll
  for (int e = 0; e < 8; ++e) {
    const int i = static_cast<int>(lane / 4) + 8 * (e / 2 % 2), j = 8 * (e / 4) + 2 * static_cast<int>(lane % 4) + e % 2;
    if (!(strong >> i & 1) || i <= j) continue;
    tiles.kk[e / 4][e % 4] += load_shared_float(scratch + 4 * (16 * i + j));
    if constexpr (with_q) tiles.qk[e / 4][e % 4] += load_shared_float(scratch + 1024 + 4 * (16 * i + j));
  }
}

} // namespace kdacheck::cuda
