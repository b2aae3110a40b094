#pragma once
// L, M, Aqa, Aqk of a chunk of the general rule on tensor cores.
//
//   L_ij = sum_c b_ic a_jc e^{G-_ic - G_jc}, M alike with k (i > j)      Aqa_ij = sum_c q_ic a_jc e^{G_ic - G_jc}, Aqk alike (i >= j)
//
// The rows are those that multiply the state, b e^{G-} and q e^{G}, decays from the start of the chunk; the columns a e^{-G}, k e^{-G}
// grow. That is right as long as no channel has decayed by more than 2^-span_limit: the factors stay far inside the range of bf16 and
// fp32, a product's rounding does not know its factors' size, and every wanted entry is a sum of decays. From the first token on where
// any channel has decayed further (in these 64 channels), rows take all of their entries from the levels of chunk_scores.cuh instead.
// Which way a row goes depends on no later token, so that later tokens cannot change its bits.

#include "../chunk/chunk_producer.cuh"
#include "dplr_layout.cuh"

namespace kdacheck::cuda {

inline constexpr float span_limit = 64;

/// Products of 64 channels. score: rows b, q by columns a 0-7, a 8-15, k 0-7, k 8-15. `cut`: rows from `good` on count as 0.
template <int K, bool cut>
__device__ __forceinline__ void multiply_scores(float (&score)[8][4], Address bench, int pass, int good, unsigned lane) {
  using Bench = GeneralBench<K>;
  const unsigned a_row = lane % 8 + 8 * ((lane / 8) % 2), b_row = lane % 8 + 8 * (lane / 16);
#pragma unroll
  for (int step = 0; step < 4; ++step) {
    const unsigned left = swizzled(a_row, 64 * pass + 16 * step + 8 * (lane / 16), 2 * K);
    const unsigned right = swizzled(b_row, 16 * step + 8 * ((lane / 8) % 2), 128);
    Operand<1> rows[2], columns[2];
    load_matrices(rows[0].word[0], bench + Bench::b + left);
    load_matrices(rows[1].word[0], bench + Bench::q + left);
    load_matrices(columns[0].word[0], bench + Bench::scores + right);
    load_matrices(columns[1].word[0], bench + Bench::scores + 16 * 128 + right);
    if constexpr (cut) {
#pragma unroll
      for (int word = 0; word < 4; ++word)
        if (static_cast<int>(lane / 4) + 8 * (word % 2) >= good) rows[0].word[0][word] = rows[1].word[0][word] = 0;
    }
#pragma unroll
    for (int row = 0; row < 2; ++row)
#pragma unroll
      for (int column = 0; column < 2; ++column)
#pragma unroll
        for (int half = 0; half < 2; ++half) multiply_add(score[4 * row + 2 * column + half], rows[row], columns[column], half);
  }
}

/// Writes this lane's channel pair of one level's 32 operand rows: 8 of b, 8 of q, 8 columns of a, 8 of k. Rows of tokens before `good`
/// are 0.
template <int span, int K, bool half_precision>
__device__ __forceinline__ void write_general_level(Address bench, const Pair (&g)[16], int good, int pass, unsigned lane) {
  using Bench = GeneralBench<K>;
  const Address rows = bench + Bench::scores;
  const auto raw = [&](int place, int token) {
    return unpack<half_precision>(load_shared_word(bench + place + swizzled(token, 64 * pass + 2 * lane, 2 * K)));
  };
  const auto norm = [&](int which, int token) {
    const float factor = load_shared_float(bench + Bench::norms + 64 * which + 4 * token);
    return Pair{factor, factor};
  };
  const auto alpha = [&](int token) { return Pair{exp2_approximate(g[token].x), exp2_approximate(g[token].y)}; };
  const auto put = [&](int row, Pair value) { store_shared(rows + swizzled(row, 2 * lane, 128), pack_bf16(value.x, value.y)); };
#pragma unroll
  for (int block = 0; block < 16; block += 2 * span) {
    Pair factor{1, 1};
#pragma unroll
    for (int i = span - 1; i >= 0; --i) {
      const int token = block + i;
      put(16 + block / 2 + i, raw(Bench::a, token) * factor);
      put(24 + block / 2 + i, raw(Bench::k, token) * norm(1, token) * factor);
      factor = factor * alpha(token);
    }
    factor = {1, 1};
#pragma unroll
    for (int i = 0; i < span; ++i) {
      const int token = block + span + i;
      const Pair before = factor;
      factor = factor * alpha(token);
      put(block / 2 + i, token < good ? Pair{0, 0} : raw(Bench::b, token) * before);
      put(8 + block / 2 + i, token < good ? Pair{0, 0} : raw(Bench::q, token) * norm(0, token) * factor);
    }
  }
}

/// Products of the 64 channels of a level: rows b and q by columns a, k.
__device__ __forceinline__ void multiply_general_level(float (&level)[2][4], Address rows, unsigned lane) {
  const unsigned a_row = lane % 8 + 8 * ((lane / 8) % 2), b_row = 16 + lane % 8 + 8 * (lane / 16);
#pragma unroll
  for (int step = 0; step < 4; ++step) {
    Operand<1> a, b;
    load_matrices(a.word[0], rows + swizzled(a_row, 16 * step + 8 * (lane / 16), 128));
    load_matrices(b.word[0], rows + swizzled(b_row, 16 * step + 8 * ((lane / 8) % 2), 128));
    multiply_add(level[0], a, b, 0);
    multiply_add(level[1], a, b, 1);
  }
}

/// What steep decay takes from the levels: by level, column tile, element. Volatile, so that it lies in memory: chunks without it have no
/// registers to spare.
using SteepScores = volatile float[4][2][4];

/// The part of 64 channels in the scores of rows from `good` on: levels, and the diagonals in fp32. Reads raw rows.
template <int K, bool half_precision>
__device__ __forceinline__ void score_steep(SteepScores& kept, Address bench, const Pair (&g)[16], int good, int pass, unsigned lane) {
  using Bench = GeneralBench<K>;
  const auto one = [&]<int span>(int level) {
    float tile[2][4] = {};
    write_general_level<span, K, half_precision>(bench, g, good, pass, lane);
    sync_warp();
    multiply_general_level(tile, bench + Bench::scores, lane);
    sync_warp();
#pragma unroll
    for (int e = 0; e < 8; ++e) kept[level][e / 4][e % 4] = kept[level][e / 4][e % 4] + tile[e / 4][e % 4];
  };
  one.template operator()<1>(0);
  one.template operator()<2>(1);
  one.template operator()<4>(2);
  one.template operator()<8>(3);
#pragma unroll 1
  for (int token = good; token < chunk_tokens; ++token) {
    const unsigned place = swizzled(token, 64 * pass + 2 * lane, 2 * K);
    const Pair q = unpack<half_precision>(load_shared_word(bench + Bench::q + place));
    const Pair a = unpack<half_precision>(load_shared_word(bench + Bench::a + place));
    const Pair k = unpack<half_precision>(load_shared_word(bench + Bench::k + place));
    float with_a = q.x * a.x + q.y * a.y, with_k = q.x * k.x + q.y * k.y;
#pragma unroll
    for (int mask = 16; mask > 0; mask /= 2) {
      with_a += shuffle_xor(with_a, mask);
      with_k += shuffle_xor(with_k, mask);
    }
    if (lane == 0) {
      const Address at = bench + Bench::diagonal + 4 * token;
      const float norm_q = load_shared_float(bench + Bench::norms + 4 * token);
      const float norm_k = load_shared_float(bench + Bench::norms + 64 + 4 * token);
      store_shared(at, load_shared_float(at) + with_a * norm_q);
      store_shared(at + 64, load_shared_float(at + 64) + with_k * (norm_q * norm_k));
    }
  }
}

/// Puts a level's wanted elements in place, in four matrices [16,16]: L, M, Aqa, Aqk.
template <int span>
__device__ __forceinline__ void scatter_general_level(const volatile float (&level)[2][4], Address matrices, unsigned lane) {
  const int rank = lane / 4, i = row_token<span>(rank);
#pragma unroll
  for (int e = 0; e < 2; ++e) {
    const int column = 2 * (lane % 4) + e, j = column_token<span>(column);
    if (rank / span == column / span) {
#pragma unroll
      for (int which = 0; which < 2; ++which) {
        store_shared(matrices + 1024 * which + 4 * (16 * i + j), level[which][e]);
        store_shared(matrices + 2048 + 1024 * which + 4 * (16 * i + j), level[which][2 + e]);
      }
    }
  }
}

/// Adds what the levels and the diagonals hold.
template <int K> __device__ __forceinline__ void add_steep(float (&score)[8][4], const SteepScores& level, Address bench, unsigned lane) {
  using Bench = GeneralBench<K>;
  const Address matrices = bench + Bench::scores;
  const std::uint32_t zeros[4] = {};
#pragma unroll
  for (int part = 0; part < 8; ++part) store_shared(matrices + 512 * part + 16 * lane, zeros);
  sync_warp();
  scatter_general_level<1>(level[0], matrices, lane);
  scatter_general_level<2>(level[1], matrices, lane);
  scatter_general_level<4>(level[2], matrices, lane);
  scatter_general_level<8>(level[3], matrices, lane);
  store_shared(matrices + 2048 + 1024 * (lane / 16) + 4 * (17 * (lane % 16)), load_shared_float(bench + Bench::diagonal + 4 * lane));
  sync_warp();
#pragma unroll
  for (int tile = 0; tile < 8; ++tile)
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      const unsigned i = lane / 4 + 8 * part, j = 8 * (tile % 2) + 2 * (lane % 4);
      const Pair more = load_shared_pair(matrices + 1024 * (tile / 2) + 4 * (16 * i + j));
      score[tile][2 * part] += more.x;
      score[tile][2 * part + 1] += more.y;
    }
  sync_warp();
}

/// Two columns of tiles side by side as a [16,16] tile of a stage, with 0 above the diagonal, or on it too.
template <bool strict, class Place>
__device__ __forceinline__ void put_lower(Place tile, const float (&left)[4], const float (&right)[4], unsigned lane) {
#pragma unroll
  for (int half = 0; half < 2; ++half)
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      const int i = static_cast<int>(lane / 4) + 8 * part, c = 2 * static_cast<int>(lane % 4), j = 8 * half + c + (strict ? 1 : 0);
      const float x = (half == 0 ? left : right)[2 * part], y = (half == 0 ? left : right)[2 * part + 1];
      store_stage(tile + tile_offset(i, half) + 2 * c, pack_bf16(i >= j ? x : 0.0f, i >= j + 1 ? y : 0.0f));
    }
}

} // namespace kdacheck::cuda
