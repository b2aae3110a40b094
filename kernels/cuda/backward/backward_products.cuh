#pragma once
// Last pass, second part: the products of a segment on tensor cores. Sub-blocks of 16 tokens are I, J; a decay between two
// sub-blocks is applied to the accumulators, a factor per channel for each sub-block on the way, so that no factor exceeds 1.
//
//   scores   P_ij = dO_i . u_j (i >= j)    N_ij = -dv_i . u_j (i > j)      u = beta R, dv = beta M
//   columns  C_J = (..(u_J dS'^T gamma_3 + [P;N]_3J^T [qd;kd]_3) gamma_2 + ..)                  times e^{G_end(J) - G_j}: dk_j
//   rows     Q_I = (..(dO_I S^T gamma_0 + P_I0 kr_0) gamma_1 + ..)   likewise of -dv and N      times e^{G_i - G_start(I)}: dq_i, dk_i
//
// A warp owns 16 channels of columns and rows for all 64 tokens; the scores are dealt out over the warps.

#include "../chunk/chunk_scores.cuh"
#include "backward_layout.cuh"

namespace kdacheck::cuda {

/// A state at a segment's end: as a sweep stored it, as the caller gave it, or zero.
struct BoundaryState {
  const std::uint32_t* words = nullptr;
  const float* given = nullptr;
  std::int64_t head = 0; ///< of `given`
  __device__ __forceinline__ bool present() const { return words != nullptr || given != nullptr; }
};

/// A block [16 value columns, 16 channels] of the state as it was read, in the order of a right operand: part 0, 1: channel l/4,
/// value columns 2(l%4), 2(l%4)+1 (8 more for part 1); part 2, 3: 8 channels further.
struct StateBlock {
  std::uint32_t word[2][4];
  __device__ __forceinline__ Pair numbers(int part) const {
    return {bits_as_float(word[part / 2][2 * (part % 2)]), bits_as_float(word[part / 2][2 * (part % 2) + 1])};
  }
};

/// `passing`: this block is not read again.
template <int K, bool passing = false, bool narrow = false>
__device__ __forceinline__ StateBlock state_block(const BoundaryState& state, const ForwardArguments& args, int group, int step,
                                                  unsigned lane) {
  StateBlock block;
  if (narrow && 16 * group >= args.K) return {};
  if (state.words != nullptr) {
    const std::uint32_t* from = state.words + (group * (args.V / 16) + step) * 128 + 4 * static_cast<int>(lane);
    const std::uint32_t* upper = from + 8 * channels_of<K, narrow>(args) * args.V / 16;
    if constexpr (passing) {
      load_global_passing(block.word[0], from);
      load_global_passing(block.word[1], upper);
    } else {
      load_global(block.word[0], from);
      load_global(block.word[1], upper);
    }
    return block;
  }
#pragma unroll
  for (int part = 0; part < 4; ++part) {
    const int channel = 16 * group + 8 * (part / 2) + static_cast<int>(lane / 4),
              v = 16 * step + 8 * (part % 2) + 2 * static_cast<int>(lane % 4);
    block.word[part / 2][2 * (part % 2)] = float_as_bits(state.given[state_offset(args, state.head, channel, v)]);
    block.word[part / 2][2 * (part % 2) + 1] = float_as_bits(state.given[state_offset(args, state.head, channel, v + 1)]);
  }
  return block;
}

template <int pieces> __device__ __forceinline__ Operand<pieces> state_operand(const StateBlock& block) {
  Operand<pieces> operand;
#pragma unroll
  for (int part = 0; part < 4; ++part) {
    const Pair x = block.numbers(part);
    const Terms<pieces> terms = split<pieces>(x.x, x.y);
#pragma unroll
    for (int piece = 0; piece < pieces; ++piece) operand.word[piece][part] = terms.word[piece];
  }
  return operand;
}

/// Left operand: 16 rows from `row` on, 16 value columns from `column` on, of a tensor [64,V] in `present` terms.
template <int pieces, int present = pieces>
__device__ __forceinline__ Operand<pieces> left_values(Address tensor, int row_bytes, int piece_bytes, int row, int column, unsigned lane) {
  Operand<pieces> operand;
  const Address from = tensor + (row + static_cast<int>(lane % 8 + 8 * ((lane / 8) % 2))) * row_bytes + 2 * column + 16 * (lane / 16);
#pragma unroll
  for (int piece = 0; piece < pieces; ++piece) {
    if (piece < present) {
      load_matrices(operand.word[piece], from + piece * piece_bytes);
    } else {
#pragma unroll
      for (int m = 0; m < 4; ++m) operand.word[piece][m] = 0;
    }
  }
  return operand;
}

/// Right operand: the transpose of the same.
template <int pieces>
__device__ __forceinline__ Operand<pieces> right_values(Address tensor, int row_bytes, int piece_bytes, int row, int column,
                                                        unsigned lane) {
  Operand<pieces> operand;
  load_operand(operand, tensor + (row + static_cast<int>(lane % 8 + 8 * (lane / 16))) * row_bytes + 2 * column + 16 * ((lane / 8) % 2),
               piece_bytes);
  return operand;
}

/// Right operand: 16 rows of kd, qd or kr at this warp's channels.
template <int K, int pieces> __device__ __forceinline__ Operand<pieces> right_keys(Address tensor, int row, int channel, unsigned lane) {
  Operand<pieces> operand;
  load_operand_transposed(operand, tensor + swizzled(row + lane % 8 + 8 * ((lane / 8) % 2), channel + 8 * (lane / 16), 2 * K),
                          segment_tokens * K * 2);
  return operand;
}

/// Left operands from a tile of scores.
template <int pieces> __device__ __forceinline__ Operand<pieces> left_scores(Address tile, unsigned lane) {
  Operand<pieces> operand;
  load_operand(operand, tile + tile_offset(lane % 8 + 8 * ((lane / 8) % 2), lane / 16), tile_bytes);
  return operand;
}
template <int pieces> __device__ __forceinline__ Operand<pieces> left_scores_transposed(Address tile, unsigned lane) {
  Operand<pieces> operand;
  load_operand_transposed(operand, tile + tile_offset(lane % 8 + 8 * (lane / 16), (lane / 8) % 2), tile_bytes);
  return operand;
}

/// acc *= decay of two neighbouring channels.
__device__ __forceinline__ void scale_channels(float (&tile)[4], Pair factor) {
  tile[0] *= factor.x, tile[1] *= factor.y, tile[2] *= factor.x, tile[3] *= factor.y;
}

/// dO_i . R_j (`kind` 0) or M_i . R_j (1) of sub-blocks i and j.
template <int K, int pieces, bool half_precision>
__device__ __forceinline__ void multiply_pair(float (&score)[2][4], Address base, const GradientLayout<K, pieces, half_precision>& at,
                                              int V, int kind, int i, int j, unsigned lane) {
  using Layout = GradientLayout<K, pieces, half_precision>;
#pragma unroll
  for (int e = 0; e < 8; ++e) score[e / 4][e % 4] = 0;
  const Address rows = base + (kind == 0 ? at.d_o : at.M);
  const int piece_bytes = kind == 0 && Layout::cotangent_pieces < pieces ? 0 : at.value_piece;
#pragma unroll 2
  for (int column = 0; column < V; column += 16) {
    Operand<pieces> left = left_values<pieces>(rows, at.value_row, piece_bytes, 16 * i, column, lane);
    if constexpr (Layout::cotangent_pieces < pieces) // dO has one term: the second was read from the same place
#pragma unroll
      for (int m = 0; m < 4; ++m) left.word[pieces - 1][m] = kind == 0 ? 0 : left.word[pieces - 1][m];
    const Operand<pieces> right = right_values<pieces>(base + Layout::R, at.value_row, at.value_piece, 16 * j, column, lane);
    multiply_add(score[0], left, right, 0);
    multiply_add(score[1], left, right, 1);
  }
}

/// Betas of the columns, and for k minus those of the rows, on one half of a tile.
template <int K, int pieces, bool half_precision>
__device__ __forceinline__ void scale_scores(float (&score)[4], Address base, const GradientLayout<K, pieces, half_precision>& at, int kind,
                                             int i, int j, int half, unsigned lane) {
  const Pair beta_j = load_shared_pair(base + at.betas + 4 * (16 * j + 8 * half + 2 * static_cast<int>(lane % 4)));
#pragma unroll
  for (int lower = 0; lower < 2; ++lower) {
    const int row = static_cast<int>(lane / 4) + 8 * lower;
    const float factor = kind == 0 ? 1.0f : -load_shared_float(base + at.betas + 4 * (16 * i + row));
    score[2 * lower] *= factor * beta_j.x;
    score[2 * lower + 1] *= factor * beta_j.y;
  }
}

/// Scores: those of different sub-blocks go to shared memory as operands, those of equal ones stay in `diagonal` (kept by the
/// warp until store_diagonal). Even warps work for q, odd ones for k. `d_beta(token, m . r)` receives what the diagonal gives.
template <int K, int pieces, bool half_precision, class BetaGradient>
__device__ __forceinline__ void multiply_scores(float (&diagonal)[GradientLayout<K, pieces, half_precision>::diagonal_turns][2][4],
                                                Address base, const GradientLayout<K, pieces, half_precision>& at, int V,
                                                BetaGradient d_beta) {
  using Layout = GradientLayout<K, pieces, half_precision>;
  const int warp = static_cast<int>(thread_index() / 32), kind = warp % 2;
  const unsigned lane = thread_index() % 32;
  constexpr int takers = K / 32; // warps of one kind
#pragma unroll
  for (int turn = 0; turn < Layout::diagonal_turns; ++turn) {
    const int i = warp / 2 + turn * takers;
    if (takers > sub_blocks && i >= sub_blocks) break;
    float(&score)[2][4] = diagonal[turn];
    multiply_pair<K, pieces, half_precision>(score, base, at, V, kind, i, i, lane);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (kind == 1 && lane / 8 == lane % 4) // this lane holds row lane / 4 of the half's diagonal
        d_beta(16 * i + static_cast<int>(lane / 4) + 8 * half, (lane / 4) % 2 == 0 ? score[half][2 * half] : score[half][2 * half + 1]);
      scale_scores<K, pieces, half_precision>(score[half], base, at, kind, i, i, half, lane);
    }
  }
#pragma unroll 1
  for (int pair = warp / 2; pair < sub_block_pairs; pair += takers) {
    const int i = pair < 1 ? 1 : pair < 3 ? 2 : 3, j = pair - i * (i - 1) / 2;
    float score[2][4];
    multiply_pair<K, pieces, half_precision>(score, base, at, V, kind, i, j, lane);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      scale_scores<K, pieces, half_precision>(score[half], base, at, kind, i, j, half, lane);
#pragma unroll
      for (int lower = 0; lower < 2; ++lower) {
        const Terms<pieces> terms = split<pieces>(score[half][2 * lower], score[half][2 * lower + 1]);
#pragma unroll
        for (int piece = 0; piece < pieces; ++piece)
          store_shared(base + at.scores + Layout::score_tile(kind, i, j) + piece * tile_bytes + tile_offset(lane / 4 + 8 * lower, half) +
                           4 * (lane % 4),
                       terms.word[piece]);
      }
    }
  }
}

/// Scores of equal sub-blocks as fp32 [kind][sub-block][16][16]; zero above the diagonal.
template <int K, int turns> __device__ __forceinline__ void store_diagonal(const float (&diagonal)[turns][2][4], Address scores) {
  const int warp = static_cast<int>(thread_index() / 32), lane = static_cast<int>(thread_index() % 32), kind = warp % 2;
#pragma unroll
  for (int turn = 0; turn < turns; ++turn) {
    const int block = warp / 2 + turn * (K / 32);
    if (K / 32 > sub_blocks && block >= sub_blocks) break;
#pragma unroll
    for (int part = 0; part < 4; ++part) {
      const int row = lane / 4 + 8 * (part % 2), column = 8 * (part / 2) + 2 * (lane % 4);
      const float x = diagonal[turn][part / 2][2 * (part % 2)], y = diagonal[turn][part / 2][2 * (part % 2) + 1];
      store_shared(scores + (kind * sub_blocks + block) * 1024 + 4 * (16 * row + column),
                   Pair{column <= row - kind ? x : 0.0f, column + 1 <= row - kind ? y : 0.0f});
    }
  }
}

/// Columns, in `C`. Also what flows from all tokens but the last, and from the state, to the segment's end, for dg: `ends` and
/// `kept` in shared memory, [K] each.
template <int K, int pieces, bool half_precision, bool narrow = false>
__device__ __forceinline__ void multiply_columns(float (&C)[sub_blocks][2][4], const ForwardArguments& args, Address base,
                                                 const GradientLayout<K, pieces, half_precision>& at, const BoundaryState& S,
                                                 const BoundaryState& dS, int last_token) {
  using Layout = GradientLayout<K, pieces, half_precision>;
  const int group = static_cast<int>(thread_index() / 32);
  const unsigned lane = thread_index() % 32;
  const int pair_channel = 16 * group + 2 * static_cast<int>(lane % 4), turned_channel = 16 * group + static_cast<int>(lane / 4);
#pragma unroll
  for (int e = 0; e < 8 * sub_blocks; ++e) C[e / 8][e / 4 % 2][e % 4] = 0;
  Pair flow[2]{};
  float kept[2]{};
  if (dS.present()) {
    const bool with_S = S.present();
    const int steps = args.V / 16;
    StateBlock d[2]{}, s[2]{}; // of this step and of the next
    constexpr int early = 2;   // what is read ahead is read by the loop itself: code that is written once
#pragma unroll 1
    for (int step = -early; step < steps; ++step) {
      const StateBlock d_now = d[0], s_now = s[0];
      d[0] = d[1];
      s[0] = s[1];
      if (step + early < steps) {
        d[1] = state_block<K, true, narrow>(dS, args, group, step + early, lane);
        if (with_S) s[1] = state_block<K, false, narrow>(S, args, group, step + early, lane);
      }
      if (step < 0) continue;
      const Operand<pieces> right = state_operand<pieces>(d_now);
      if (with_S)
#pragma unroll
        for (int part = 0; part < 4; ++part) {
          const Pair x = s_now.numbers(part), y = d_now.numbers(part);
          kept[part / 2] += x.x * y.x + x.y * y.y;
        }
#pragma unroll
      for (int block = 0; block < sub_blocks; ++block) {
        const Operand<pieces> left = left_values<pieces>(base + Layout::R, at.value_row, at.value_piece, 16 * block, 16 * step, lane);
        multiply_add(C[block][0], left, right, 0);
        multiply_add(C[block][1], left, right, 1);
      }
    }
    const int own_row = static_cast<int>(lane / 4);
    const Address keys[2] = {base + Layout::kr + swizzled(own_row, pair_channel, 2 * K),
                             base + Layout::kr + swizzled(own_row, pair_channel + 8, 2 * K)};
#pragma unroll
    for (int block = 0; block < sub_blocks; ++block) {
      const int row = 16 * block + own_row;
      const float beta[2] = {load_shared_float(base + at.betas + 4 * row), load_shared_float(base + at.betas + 4 * (row + 8))};
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const Pair gamma = load_shared_pair(base + at.gammas + 4 * (block * K + pair_channel + 8 * half));
        flow[half] = flow[half] * gamma;
#pragma unroll
        for (int lower = 0; lower < 2; ++lower) {
          float &x = C[block][half][2 * lower], &y = C[block][half][2 * lower + 1];
          x *= beta[lower];
          y *= beta[lower];
          const bool decays = row + 8 * lower != last_token; // the last token's key does not decay on its way to the end
#pragma unroll
          for (int piece = 0; piece < pieces; ++piece) {
            const Pair kr = unpack_bf16(load_shared_word(keys[half] + piece * Layout::key_piece + (16 * block + 8 * lower) * 2 * K));
            if (decays) flow[half] = {flow[half].x + kr.x * x, flow[half].y + kr.y * y};
          }
        }
      }
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int mask = 4; mask < 32; mask *= 2)
      flow[half] = {flow[half].x + shuffle_xor(flow[half].x, mask), flow[half].y + shuffle_xor(flow[half].y, mask)};
    if (lane / 4 == 0) store_shared(base + at.ends + 4 * (pair_channel + 8 * half), flow[half]);
    kept[half] += shuffle_xor(kept[half], 1);
    kept[half] += shuffle_xor(kept[half], 2);
    if (lane % 4 == 0) {
      float sum = kept[half];
#pragma unroll
      for (int block = 0; block < sub_blocks; ++block)
        sum *= load_shared_float(base + at.gammas + 4 * (block * K + turned_channel + 8 * half));
      store_shared(base + at.kept + 4 * (turned_channel + 8 * half), sum);
    }
  }
#pragma unroll
  for (int i = sub_blocks - 1; i > 0; --i) {
    const Operand<pieces> qd = right_keys<K, pieces>(base + Layout::qd, 16 * i, 16 * group, lane);
    const Operand<pieces> kd = right_keys<K, pieces>(base + Layout::kd, 16 * i, 16 * group, lane);
    const Pair gamma[2] = {load_shared_pair(base + at.gammas + 4 * (i * K + pair_channel)),
                           load_shared_pair(base + at.gammas + 4 * (i * K + pair_channel + 8))};
#pragma unroll
    for (int j = 0; j < i; ++j) {
      const Operand<pieces> P = left_scores_transposed<pieces>(base + at.scores + Layout::score_tile(0, i, j), lane);
      const Operand<pieces> N = left_scores_transposed<pieces>(base + at.scores + Layout::score_tile(1, i, j), lane);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        scale_channels(C[j][half], gamma[half]);
        multiply_add(C[j][half], P, qd, half);
        multiply_add(C[j][half], N, kd, half);
      }
    }
  }
}

/// Rows of q and of k, in `Q` and `N`.
template <int K, int pieces, bool half_precision, bool narrow = false>
__device__ __forceinline__ void multiply_rows(float (&Q)[sub_blocks][2][4], float (&N)[sub_blocks][2][4], const ForwardArguments& args,
                                              Address base, const GradientLayout<K, pieces, half_precision>& at, const BoundaryState& S) {
  using Layout = GradientLayout<K, pieces, half_precision>;
  const int group = static_cast<int>(thread_index() / 32);
  const unsigned lane = thread_index() % 32;
  const int pair_channel = 16 * group + 2 * static_cast<int>(lane % 4);
#pragma unroll
  for (int e = 0; e < 8 * sub_blocks; ++e) Q[e / 8][e / 4 % 2][e % 4] = N[e / 8][e / 4 % 2][e % 4] = 0;
  if (S.present()) {
    const int steps = args.V / 16;
    StateBlock next{};
#pragma unroll 1
    for (int step = -1; step < steps; ++step) {
      const Operand<pieces> right = state_operand<pieces>(next);
      if (step + 1 < steps) next = state_block<K, true, narrow>(S, args, group, step + 1, lane);
      if (step < 0) continue;
#pragma unroll
      for (int block = 0; block < sub_blocks; ++block) {
        const Operand<pieces> d_o =
            left_values<pieces, Layout::cotangent_pieces>(base + at.d_o, at.value_row, at.value_piece, 16 * block, 16 * step, lane);
        multiply_add(Q[block][0], d_o, right, 0);
        multiply_add(Q[block][1], d_o, right, 1);
        const Operand<pieces> m = left_values<pieces>(base + at.M, at.value_row, at.value_piece, 16 * block, 16 * step, lane);
        multiply_add(N[block][0], m, right, 0);
        multiply_add(N[block][1], m, right, 1);
      }
    }
#pragma unroll
    for (int block = 0; block < sub_blocks; ++block)
#pragma unroll
      for (int lower = 0; lower < 2; ++lower) {
        const float beta = load_shared_float(base + at.betas + 4 * (16 * block + static_cast<int>(lane / 4) + 8 * lower));
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          N[block][half][2 * lower] *= -beta;
          N[block][half][2 * lower + 1] *= -beta;
        }
      }
  }
#pragma unroll
  for (int j = 0; j + 1 < sub_blocks; ++j) {
    const Operand<pieces> kr = right_keys<K, pieces>(base + Layout::kr, 16 * j, 16 * group, lane);
    const Pair gamma[2] = {load_shared_pair(base + at.gammas + 4 * (j * K + pair_channel)),
                           load_shared_pair(base + at.gammas + 4 * (j * K + pair_channel + 8))};
#pragma unroll
    for (int i = j + 1; i < sub_blocks; ++i) {
      const Operand<pieces> of_q = left_scores<pieces>(base + at.scores + Layout::score_tile(0, i, j), lane);
      const Operand<pieces> of_k = left_scores<pieces>(base + at.scores + Layout::score_tile(1, i, j), lane);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        scale_channels(Q[i][half], gamma[half]);
        scale_channels(N[i][half], gamma[half]);
        multiply_add(Q[i][half], of_q, kr, half);
        multiply_add(N[i][half], of_k, kr, half);
      }
    }
  }
}

/// A result [64 tokens, 16 channels] of a warp to shared memory, [64,K] fp32.
template <int K> __device__ __forceinline__ void store_result(const float (&X)[sub_blocks][2][4], Address to) {
  const unsigned group = thread_index() / 32, lane = thread_index() % 32;
#pragma unroll
  for (int block = 0; block < sub_blocks; ++block)
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
      for (int lower = 0; lower < 2; ++lower)
        store_shared(to + result_offset<K>(16 * block + lane / 4 + 8 * lower, 16 * group + 8 * half + 2 * (lane % 4)),
                     Pair{X[block][half][2 * lower], X[block][half][2 * lower + 1]});
}

} // namespace kdacheck::cuda
