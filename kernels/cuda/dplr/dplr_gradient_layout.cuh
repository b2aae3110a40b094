#pragma once
// Shared memory of the last pass of the general rule's backward pass, one block per segment of 64 tokens and q/k head. 224,800
// bytes at K = V = 128 with a gate of 16 bits.

#include "../backward/backward_gradients.cuh"
#include "dplr_sweeps.cuh"

namespace kdacheck::cuda {

struct GeneralGradients {
  GradientArguments last; ///< R, M: W and Y. dbeta is not used
  View da, db;
  Stored da_format = Stored::fp32, db_format = Stored::fp32;
  const unsigned char* stages = nullptr;
  std::int64_t stage_slots = 0;
};

inline constexpr int most_turn_columns = 128; ///< value columns whose states a block holds at once

/// Shared memory of a block.
template <int K> struct GeneralGradientLayout {
  static constexpr int chunk_keys = GeneralStage<K>::rows_bytes, result = chunk_tokens * K * 4;
  static constexpr int keys = 0, decays = keys + sub_blocks * chunk_keys, norms = decays + sub_blocks * 4 * K;
  static constexpr int scores = norms + sub_blocks * 128; ///< [chunk][Pa Pk Na Nk][16][16] fp32, N a row further up
  static constexpr int Q = scores + sub_blocks * 4096, B = Q + result, A = B + result, C = A + result;
  static constexpr int column_a = C + result, flow = column_a + result, kept = flow + result, sums = kept + 4 * K;
  static constexpr int raw_rows = chunk_tokens * K * 2, raw = sums + 32, raw_g = raw + 4 * raw_rows; ///< q k a b of a chunk, as stored
  static constexpr int column_k = raw + 2 * raw_rows;                                                ///< over a and b
  int values, columns, value_row, value_bytes, bytes; ///< value columns of a turn; then W V Y dO [64, columns]
  constexpr __device__ __host__ GeneralGradientLayout(int V, int gate_bytes)
      : values(raw_g + chunk_tokens * K * gate_bytes), columns(V < most_turn_columns ? V : most_turn_columns), value_row(2 * columns + 16),
        value_bytes(segment_tokens * value_row), bytes(values + 4 * value_bytes) {}
  constexpr __device__ __host__ int W() const { return values; }
  constexpr __device__ __host__ int V() const { return values + value_bytes; }
  constexpr __device__ __host__ int Y() const { return values + 2 * value_bytes; }
  constexpr __device__ __host__ int d_o() const { return values + 3 * value_bytes; }
};

} // namespace kdacheck::cuda
