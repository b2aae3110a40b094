#pragma once
// Akk and Aqk of a chunk on tensor cores without any factor above 1.
//
// Akk_ij = sum_c k_ic k_jc e^{G_ic - G_jc} (i > j). Let s be the highest bit in which i and j differ: then j lies in the
// lower and i in the upper half of a block of 2s tokens, and with the last token r of the lower half as anchor
//   e^{G_i - G_j} = e^{G_i - G_r} e^{G_r - G_j},   both exponents <= 0, and r <= i, so that no row sees a later token.
// At each of the four levels s = 1, 2, 4, 8 eight tokens are rows and eight are columns: 8 rows of k and the same 8 of q
// stacked give one 16x8 tile, of which the diagonal blocks s x s are what is wanted. Factors are products of the decays
// between the two tokens, so that they are 0, never NaN, when they underflow.

#include "chunk_layout.cuh"

namespace kdacheck::cuda {

__device__ __forceinline__ Pair operator*(Pair a, Pair b) { return {a.x * b.x, a.y * b.y}; }

/// Tokens of a level: rank r = 0..7 among its rows (upper halves) or columns (lower halves).
template <int span> __device__ __forceinline__ int column_token(int rank) { return rank / span * 2 * span + rank % span; }
template <int span> __device__ __forceinline__ int row_token(int rank) { return column_token<span>(rank) + span; }

/// Writes this lane's channel pair of one level's 24 operand rows (8 of k, 8 of q, 8 columns of k).
template <int span, int pieces, bool with_q = true>
__device__ __forceinline__ void write_level(Address rows, const Pair (&k)[16], const Pair (&q)[16], const Pair (&alpha)[16],
                                            unsigned lane) {
  const auto put = [&](int row, Pair value) {
    const Terms<pieces> terms = split<pieces>(value.x, value.y);
#pragma unroll
    for (int piece = 0; piece < terms_of(pieces); ++piece)
      store_shared(rows + piece * (24 * 128) + swizzled(row, 2 * lane, 128), terms.word[piece]);
  };
#pragma unroll
  for (int block = 0; block < 16; block += 2 * span) {
    Pair factor{1, 1};
#pragma unroll
    for (int i = span - 1; i >= 0; --i) {
      put(16 + block / 2 + i, k[block + i] * factor);
      factor = factor * alpha[block + i];
    }
    factor = {1, 1};
#pragma unroll
    for (int i = 0; i < span; ++i) {
      factor = factor * alpha[block + span + i];
      put(block / 2 + i, k[block + span + i] * factor);
      if constexpr (with_q) put(8 + block / 2 + i, q[block + span + i] * factor);
    }
  }
}

/// Adds the products over the 64 channels that lie in `rows`. (Loading all operands ahead of the products spills.)
template <int pieces> __device__ __forceinline__ void multiply_level(float (&tile)[4], Address rows, unsigned lane) {
  const unsigned a_row = lane % 8 + 8 * ((lane / 8) % 2), b_row = 16 + lane % 8;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    Operand<pieces> b;
#pragma unroll
    for (int piece = 0; piece < terms_of(pieces); ++piece)
      load_matrices(b.word[piece], rows + piece * (24 * 128) + swizzled(b_row, 32 * half + 8 * (lane / 8), 128));
    Operand<pieces> a[2];
#pragma unroll
    for (int step = 0; step < 2; ++step)
#pragma unroll
      for (int piece = 0; piece < terms_of(pieces); ++piece)
        load_matrices(a[step].word[piece], rows + piece * (24 * 128) + swizzled(a_row, 32 * half + 16 * step + 8 * (lane / 16), 128));
    multiply_add(tile, a[0], b, 0);
    multiply_add(tile, a[1], b, 1);
  }
}

/// Stores to a stage, in shared memory or in global memory.
template <class Value> __device__ __forceinline__ void store_stage(Address to, const Value& x) { store_shared(to, x); }
__device__ __forceinline__ void store_stage(unsigned char* to, std::uint32_t x) { *reinterpret_cast<std::uint32_t*>(to) = x; }
__device__ __forceinline__ void store_stage(unsigned char* to, float x) { *reinterpret_cast<float*>(to) = x; }
__device__ __forceinline__ void store_stage(unsigned char* to, const std::uint32_t (&x)[4]) { store_global(to, x); }

/// A [16,16] fp32 matrix in shared memory as a tile of a stage.
template <int pieces, class Place> __device__ __forceinline__ void write_tile(Place tile, Address matrix, unsigned lane) {
  float x[8];
  float quad[4];
  load_shared_quad(quad, matrix + 32 * lane);
#pragma unroll
  for (int e = 0; e < 4; ++e) x[e] = quad[e];
  load_shared_quad(quad, matrix + 32 * lane + 16);
#pragma unroll
  for (int e = 0; e < 4; ++e) x[4 + e] = quad[e];
  std::uint32_t words[terms_of(pieces)][4];
#pragma unroll
  for (int m = 0; m < 4; ++m) {
    const Terms<pieces> terms = split<pieces>(x[2 * m], x[2 * m + 1]);
#pragma unroll
    for (int piece = 0; piece < terms_of(pieces); ++piece) words[piece][m] = terms.word[piece];
  }
#pragma unroll
  for (int piece = 0; piece < terms_of(pieces); ++piece)
    store_stage(tile + piece * tile_bytes + tile_offset(lane / 2, lane % 2), words[piece]);
}

/// All four levels of a pass, one after the other in the same operand rows.
template <int pieces, bool with_q>
__device__ __forceinline__ void add_levels(float (&tiles)[4][4], Address rows, const Pair (&k)[16], const Pair (&q)[16],
                                           const Pair (&alpha)[16], unsigned lane) {
  const auto level = [&]<int span>(float(&tile)[4]) {
    write_level<span, pieces, with_q>(rows, k, q, alpha, lane);
    sync_warp();
    multiply_level<pieces>(tile, rows, lane);
    sync_warp();
  };
  level.template operator()<1>(tiles[0]);
  level.template operator()<2>(tiles[1]);
  level.template operator()<4>(tiles[2]);
  level.template operator()<8>(tiles[3]);
}

/// Calls `put(row, column, Akk, Aqk)` for a level's wanted elements.
template <int span, class Put> __device__ __forceinline__ void each_wanted(const float (&tile)[4], unsigned lane, Put put) {
  const int rank = lane / 4;
#pragma unroll
  for (int e = 0; e < 2; ++e)
    if (const int column = 2 * (lane % 4) + e; rank / span == column / span)
      put(row_token<span>(rank), column_token<span>(column), tile[e], tile[2 + e]);
}
template <class Put> __device__ __forceinline__ void each_wanted(const float (&tiles)[4][4], unsigned lane, Put put) {
  each_wanted<1>(tiles[0], lane, put);
  each_wanted<2>(tiles[1], lane, put);
  each_wanted<4>(tiles[2], lane, put);
  each_wanted<8>(tiles[3], lane, put);
}

/// Puts a level's wanted elements in place: beta_i Akk_ij at L[j][i] (in the sweep of states beta_j Akk_ij), Aqk_ij at Aqk[i][j].
template <int span, Sweep sweep>
__device__ __forceinline__ void scatter_level(const float (&tile)[4], Address betas, Address L, Address Aqk, unsigned lane) {
  const int rank = lane / 4, i = row_token<span>(rank);
  const float beta_i = load_shared_float(betas + 4 * i);
#pragma unroll
  for (int e = 0; e < 2; ++e) {
    const int column = 2 * (lane % 4) + e, j = column_token<span>(column);
    if (rank / span == column / span) {
      if constexpr (sweep == Sweep::states) {
        store_shared(L + 4 * (matrix_stride * j + i), load_shared_float(betas + 4 * j) * tile[e]);
      } else {
        store_shared(L + 4 * (matrix_stride * j + i), beta_i * tile[e]);
        store_shared(Aqk + 4 * (16 * i + j), tile[2 + e]);
      }
    }
  }
}

/// All levels' elements, Aqk as a tile to the stage, by way of `Aqk`, which may lie over operands.
template <int pieces, Sweep sweep, class Place>
__device__ __forceinline__ void scatter_levels(const float (&tiles)[4][4], Address betas, Address diagonal, Address L, Address Aqk,
                                               Place stage_Aqk, unsigned lane) {
  static_assert(sweep != Sweep::stored);
  constexpr bool with_q = sweep != Sweep::states;
  if constexpr (with_q) {
    const std::uint32_t zeros[4] = {};
    store_shared(Aqk + 32 * lane, zeros);
    store_shared(Aqk + 32 * lane + 16, zeros);
    sync_warp();
    if (lane < 16) store_shared(Aqk + 4 * (17 * lane), load_shared_float(diagonal + 4 * lane));
  }
  scatter_level<1, sweep>(tiles[0], betas, L, Aqk, lane);
  scatter_level<2, sweep>(tiles[1], betas, L, Aqk, lane);
  scatter_level<4, sweep>(tiles[2], betas, L, Aqk, lane);
  scatter_level<8, sweep>(tiles[3], betas, L, Aqk, lane);
  sync_warp();
  if constexpr (with_q) write_tile<pieces>(stage_Aqk, Aqk, lane);
}

/// T = (I + L)^{-1} diag(beta) by forward substitution in fp32; overwrites L (whose columns are `stride` numbers apart), row-major.
/// Lane j of each half warp solves for column j; `beta_j` is that column's. What is above the diagonal stays 0 where the column's beta is
/// not a number. `both`: the upper half solves another system, matrix_bytes further.
template <bool both = false, int stride = matrix_stride> __device__ __forceinline__ void solve(Address L, float beta_j, unsigned lane) {
  const int j = lane % 16;
  if constexpr (both) L += matrix_bytes * (lane / 16);
  float x[16];
#pragma unroll
  for (int i = 0; i < 16; ++i) x[i] = i == j ? beta_j : 0.0f;
#pragma unroll
  for (int m = 0; m < 15; ++m) {
#pragma unroll
    for (int quad = (m + 1) / 4; quad < 4; ++quad) {
      float column[4];
      load_shared_quad(column, L + 4 * (stride * m + 4 * quad));
#pragma unroll
      for (int e = 0; e < 4; ++e)
        if (4 * quad + e > m) x[4 * quad + e] -= column[e] * x[m];
    }
  }
  sync_warp();
  if (both || lane < 16) {
#pragma unroll
    for (int i = 0; i < 16; ++i) store_shared(L + 4 * (16 * i + j), x[i]);
  }
  sync_warp();
}

} // namespace kdacheck::cuda
