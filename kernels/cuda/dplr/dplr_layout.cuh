#pragma once
// Shared memory of the general rule's chunk kernel.
//
// A *stage* is one chunk of 16 tokens, ready for the state update, bf16 unless said otherwise:
//   qd = scale q e^{G}   bd = b e^{G-}   ar = a e^{G_C - G}   kr = k e^{G_C - G}  [16,K]   -T   M  [16,16]   e^{G_C} [K] fp32   Aqk   Aqa
// with G the running sums of log decay in the chunk, G- those before each token, T = (I + L)^{-1}, and L, M, Aqa, Aqk the products of
// b (below the diagonal) and q (up to it) with a and k; what lies between qd and Aqk is all that the state takes. A *bench* belongs to one
// producer warp: the raw rows of b, q, a, k, which turn into bd, qd, ar, kr where they lie; 32 rows of 64 channels of operands for the
// scores; a few vectors; the raw rows of g.

#include "../chunk/chunk_layout.cuh"

namespace kdacheck::cuda {

template <int K> struct GeneralStage {
  static constexpr int piece = chunk_tokens * K * 2;
  static constexpr int qd = 0, bd = qd + piece, ar = bd + piece, kr = ar + piece, rows_bytes = kr + piece;
  static constexpr int T = rows_bytes, M = T + tile_bytes, decay = M + tile_bytes, Aqk = decay + K * 4, Aqa = Aqk + tile_bytes;
  static constexpr int bytes = Aqa + tile_bytes;
};

template <int K> struct GeneralBench {
  using Stage = GeneralStage<K>;
  static constexpr int b = Stage::bd, q = Stage::qd, a = Stage::ar, k = Stage::kr; ///< rows swizzled
  static constexpr int scores = Stage::rows_bytes; ///< 32 rows of 128 bytes; then four fp32 matrices [16,16]; then L, T
  static constexpr int decay = scores + 32 * 128;
  static constexpr int norms = decay + K * 4;   ///< factors of 16 q rows, of 16 k rows
  static constexpr int diagonal = norms + 128;  ///< of Aqa, Aqk: what steep decay leaves to be added
  static constexpr int biases = diagonal + 128; ///< dt_bias
  static constexpr int raw_g = biases + 4 * K;
  static constexpr __device__ __host__ int bytes(int gate_bytes) { return raw_g + chunk_tokens * K * gate_bytes; }
};

/// Dynamic shared memory of a block.
template <int K>
constexpr __device__ __host__ int general_shared_bytes(int stages, int producer_warps, int consumer_warps, int gate_bytes) {
  return header_bytes + stages * GeneralStage<K>::bytes + producer_warps * GeneralBench<K>::bytes(gate_bytes) +
         consumer_warps * consumer_bytes;
}

} // namespace kdacheck::cuda
