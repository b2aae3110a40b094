#pragma once
// Last pass of the general rule's backward pass: everything but dv and dh0, parallel over segments of 64 tokens and q/k heads.
//
// A warp owns 16 channels of the state S [16 channels, V] and of its cotangent dS, fp32 in accumulators: what a product with W or dO
// leaves there is, as it lies, the right operand of the products that read it. Chunks of 16 tokens are taken from the last to the
// first; dS goes back with them, S at a chunk's beginning is worked out anew from that at the segment's. For a chunk:
//   scores   Pa_ij = dO_i . w_j   Pk_ij = dO_i . v_j  (i >= j)      Na_ij = y_i . w_j   Nk_ij = y_i . v_j  (i > j)
//   products Q = dO S^T   B = Y S^T   A = W dS'^T   C = V dS'^T      kept = e^{G_C} rows of S . dS'
// and then in fp32, a thread a channel, with e^{i,j} the decay from token j to token i, factors never above 1:
//   dq_i = e^{i,0} Q_i + sum_{j<=i} e^{i,j} (Pa_ij a_j + Pk_ij k_j)          da_j = e^{C,j} A_j + sum_i (e^{i,j} Pa_ij q_i + e^{i-1,j}
//   Na_ij b_i) db_i = e^{i-1,0} B_i + sum_{j<i} e^{i-1,j} (Na_ij a_j + Nk_ij k_j)       dk_j alike d log decay_t = what crosses it: rows
//   q_i . e^{i,0} Q_i from t on and b_i . e^{i-1,0} B_i after t; columns before t; pairs about t; kept
// Row i of b has the decays of row i - 1 of q: one code serves both, half of the threads each.

#include "dplr_rows.cuh"

namespace kdacheck::cuda {

/// 16 channels of a state, or of its cotangent, at up to 128 value columns: rows of accumulators are channels.
using StateTiles = float[most_turn_columns / 8][4];

template <int K>
__device__ __forceinline__ void load_tiles(StateTiles& S, const BoundaryState& from, const ForwardArguments& args, int group,
                                           int first_column, int columns, unsigned lane) {
#pragma unroll
  for (int e = 0; e < most_turn_columns / 2; ++e) S[e / 4][e % 4] = 0;
  if (from.words != nullptr) { // as store_boundary lays them out
    const std::uint32_t* upper = from.words + (group * (args.V / 16) + first_column / 16) * 128 + 4 * static_cast<int>(lane);
    const std::uint32_t* lower = upper + K * args.V / 2;
#pragma unroll
    for (int step = 0; step < most_turn_columns / 16; ++step) {
      if (16 * step >= columns) continue;
      std::uint32_t words[2][4];
      load_global(words[0], upper + 128 * step);
      load_global(words[1], lower + 128 * step);
#pragma unroll
      for (int e = 0; e < 8; ++e) S[2 * step + e / 4][e % 4] = bits_as_float(words[e % 4 / 2][2 * (e / 4) + e % 2]);
    }
  } else if (from.given != nullptr) {
    const float* given =
        from.given + state_offset(args, from.head, 16 * group + static_cast<int>(lane / 4), first_column + 2 * static_cast<int>(lane % 4));
    const int next_column = args.v_first ? K : 1, next_channel = 8 * (args.v_first ? 1 : args.V);
#pragma unroll
    for (int tile = 0; tile < most_turn_columns / 8; ++tile, given += 8 * next_column) {
      if (8 * tile >= columns) continue;
#pragma unroll
      for (int e = 0; e < 4; ++e) S[tile][e] = given[e % 2 * next_column + e / 2 * next_channel];
    }
  }
}

/// S = Diag(decay) S + first^T x + second^T z over the chunk's tokens: rows of keys at `first` and `second`, of values at x and z.
template <int K>
__device__ __forceinline__ void move_tiles(StateTiles& S, Address decay, Address first, Address second, Address x, Address z, int value_row,
                                           int columns, int channel, unsigned lane) {
  const float upper = load_shared_float(decay + 4 * (channel + static_cast<int>(lane / 4))),
              lower = load_shared_float(decay + 4 * (channel + 8 + static_cast<int>(lane / 4)));
  const unsigned place = swizzled(lane % 8 + 8 * (lane / 16), static_cast<unsigned>(channel) + 8 * ((lane / 8) % 2), 2 * K);
  Operand<1> a, k;
  load_matrices_transposed(a.word[0], first + place);
  load_matrices_transposed(k.word[0], second + place);
  const unsigned row = (lane % 8 + 8 * ((lane / 8) % 2)) * static_cast<unsigned>(value_row) + 16 * (lane / 16);
#pragma unroll
  for (int step = 0; step < most_turn_columns / 16; ++step) {
    if (16 * step >= columns) continue;
    Operand<1> w, v;
    load_matrices_transposed(w.word[0], x + row + 32 * step);
    load_matrices_transposed(v.word[0], z + row + 32 * step);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float(&tile)[4] = S[2 * step + half];
      tile[0] *= upper, tile[1] *= upper, tile[2] *= lower, tile[3] *= lower;
      multiply_add(tile, a, w, half);
      multiply_add(tile, k, v, half);
    }
  }
}

/// Adds x S^T and z S^T of 16 tokens.
__device__ __forceinline__ void read_tiles(float (&X)[2][4], float (&Z)[2][4], const StateTiles& S, Address x, Address z, int value_row,
                                           int columns, unsigned lane) {
#pragma unroll
  for (int step = 0; step < most_turn_columns / 16; ++step) {
    if (16 * step >= columns) continue;
    const float(&left)[4] = S[2 * step], (&right)[4] = S[2 * step + 1];
    Operand<1> s;
    s.word[0][0] = pack_bf16(left[0], left[1]), s.word[0][1] = pack_bf16(right[0], right[1]);
    s.word[0][2] = pack_bf16(left[2], left[3]), s.word[0][3] = pack_bf16(right[2], right[3]);
    const Operand<1> rows_x = left_values<1>(x, value_row, 0, 0, 16 * step, lane),
                     rows_z = left_values<1>(z, value_row, 0, 0, 16 * step, lane);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      multiply_add(X[half], rows_x, s, half);
      multiply_add(Z[half], rows_z, s, half);
    }
  }
}

template <int K> __device__ __forceinline__ void store_product(const float (&X)[2][4], Address to, int channel, unsigned lane) {
#pragma unroll
  for (int half = 0; half < 2; ++half)
#pragma unroll
    for (int lower = 0; lower < 2; ++lower)
      store_shared(to + result_offset<K>(lane / 4 + 8 * lower, static_cast<unsigned>(channel) + 8 * half + 2 * (lane % 4)),
                   Pair{X[half][2 * lower], X[half][2 * lower + 1]});
}

/// Starts copying this turn's value columns of W, V, Y and dO.
template <int K, bool half_precision>
__device__ __forceinline__ void fetch_values(const GeneralGradients& gradient, Address base, const GeneralGradientLayout<K>& at,
                                             const Segment& segment, int head, int first_column, int columns) {
  const GradientArguments& last = gradient.last;
  const ForwardArguments& args = last.call;
  constexpr int threads = 2 * K;
  const std::int64_t row = static_cast<std::int64_t>(args.HV) * args.V;
  const std::int64_t offset =
      (segment.span.batch * args.T + segment.first()) * row + static_cast<std::int64_t>(head) * args.V + first_column;
  copy_values<1, threads>(base + at.W(), at.value_row, 0, last.R + offset, row, 0, segment.tokens, columns);
  copy_values<1, threads>(base + at.Y(), at.value_row, 0, last.M + offset, row, 0, segment.tokens, columns);
  copy_cotangent<1, half_precision, threads>(base + at.V(), at.value_row, 0, args.v,
                                             row_of(args.v, segment.span.batch, segment.first(), head) + first_column, segment.tokens,
                                             columns);
  copy_cotangent<1, half_precision, threads>(base + at.d_o(), at.value_row, 0, last.d_o,
                                             row_of(last.d_o, segment.span.batch, segment.first(), head) + first_column, segment.tokens,
                                             columns);
  copy_async_commit();
}

/// Keys, decays and norms of the segment's chunks, as the stages hold them.
template <int K>
__device__ __forceinline__ void fetch_keys(const GeneralGradients& gradient, Address base, const Segment& segment, int head) {
  using Layout = GeneralGradientLayout<K>;
  using Kept = KeptGeneral<K>;
  const ForwardArguments& args = gradient.last.call;
  constexpr unsigned threads = 2 * K;
  const std::int64_t first = stage_slot(args, segment.span, segment.n) + segment.number * sub_blocks;
  const unsigned char* from = gradient.stages + (head * gradient.stage_slots + first) * Kept::bytes;
  for (int chunk = 0; chunk * chunk_tokens < segment.tokens; ++chunk, from += Kept::bytes) {
    for (unsigned byte = 16 * thread_index(); byte < Layout::chunk_keys; byte += 16 * threads)
      copy_async(base + Layout::keys + chunk * Layout::chunk_keys + byte, from + byte, 16);
    for (unsigned byte = 16 * thread_index(); byte < 4 * K; byte += 16 * threads)
      copy_async(base + Layout::decays + chunk * 4 * K + byte, from + Kept::Stage::decay + byte, 16);
    if (thread_index() < 8)
      copy_async(base + Layout::norms + chunk * 128 + 16 * thread_index(), from + Kept::norms + 16 * thread_index(), 16);
  }
}

/// Scores of this warp's share of chunks and kinds. `fetch(first, columns)` brings value columns.
template <int K, class Fetch>
__device__ __forceinline__ void multiply_general_scores(Address base, const GeneralGradientLayout<K>& at, int V, int tokens, Fetch fetch) {
  constexpr int warps = K / 16, shares = 4 * sub_blocks / warps;
  const int warp = static_cast<int>(thread_index() / 32);
  const unsigned lane = thread_index() % 32;
  float score[shares][2][4] = {};
#pragma unroll 1
  for (int first = 0; first < V; first += most_turn_columns) {
    const int columns = V - first < most_turn_columns ? V - first : most_turn_columns;
    fetch(first, columns);
#pragma unroll
    for (int share = 0; share < shares; ++share) {
      const int task = warp + share * warps, chunk = task / 4, kind = task % 4, row = chunk_tokens * chunk;
      if (row >= tokens) continue;
      const Address rows = base + (kind < 2 ? at.d_o() : at.Y()), others = base + (kind % 2 == 0 ? at.W() : at.V());
#pragma unroll 1
      for (int column = 0; column < columns; column += 16) {
        const Operand<1> left = left_values<1>(rows, at.value_row, 0, row, column, lane);
        const Operand<1> right = right_values<1>(others, at.value_row, 0, row, column, lane);
        multiply_add(score[share][0], left, right, 0);
        multiply_add(score[share][1], left, right, 1);
      }
    }
  }
#pragma unroll
  for (int share = 0; share < shares; ++share) {
    const int task = warp + share * warps, kind = task % 4;
    const Address to = base + GeneralGradientLayout<K>::scores + task * 1024;
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
      for (int lower = 0; lower < 2; ++lower) {
        const int row = static_cast<int>(lane / 4) + 8 * lower - kind / 2; // those of b a row further up
        const Pair pair{score[share][half][2 * lower], score[share][half][2 * lower + 1]};
        store_shared(to + 4 * (16 * (row & 15) + 8 * half + 2 * static_cast<int>(lane % 4)), row >= 0 ? pair : Pair{0, 0});
      }
  }
}

template <int K, bool half_precision>
__device__ __forceinline__ void general_segment(const GeneralGradients& gradient, const Segment& segment, std::int64_t slot, int head,
                                                int head_q) {
  using Layout = GeneralGradientLayout<K>;
  using Stage = GeneralStage<K>;
  const GradientArguments& last = gradient.last;
  const ForwardArguments& args = last.call;
  const Layout at(args.V, args.gate_format == Stored::fp32 ? 4 : 2);
  const Address base = shared_base();
  const int warp = static_cast<int>(thread_index() / 32), channel = 16 * warp;
  const unsigned lane = thread_index() % 32;
  const bool one_turn = args.V <= most_turn_columns;
  const auto fetch = [&](int first, int columns) { // waits for all warps, then for the columns
    sync_block();
    fetch_values<K, half_precision>(gradient, base, at, segment, head, first, columns);
    copy_async_wait<0>();
    sync_block();
  };
  fetch_keys<K>(gradient, base, segment, head);
  multiply_general_scores<K>(base, at, args.V, segment.tokens, fetch);
  const BoundaryState before = state_before(last, segment, head), after = cotangent_after(last, segment, head);
  const HeadGate gate = gate_of(args, head);
  const PairOfChannels<K> own;
  Pair bias{0, 0}, bias_sum{0, 0};
  if (args.dt_bias != nullptr) {
    const float* biases = args.dt_bias + static_cast<std::int64_t>(head) * K + own.channel;
    bias = {biases[0], biases[1]};
  }
  float A_sum = 0;
  const int chunks = (segment.tokens + chunk_tokens - 1) / chunk_tokens;
  const auto keys = [&](int chunk, int which) { return base + Layout::keys + chunk * Layout::chunk_keys + which; };
  const auto decay = [&](int chunk) { return base + Layout::decays + chunk * 4 * K; };
  const auto rows = [&](int tensor, int chunk) { return base + tensor + chunk * chunk_tokens * at.value_row; };
  StateTiles dS;
#pragma unroll 1
  for (int chunk = chunks - 1; chunk >= 0; --chunk) {
    float Q[2][4] = {}, B[2][4] = {}, A[2][4] = {}, C[2][4] = {}, kept[2] = {};
    fetch_raw<K>(gradient, base, segment, chunk, head, head_q);
#pragma unroll 1
    for (int first = 0; first < args.V; first += most_turn_columns) {
      const int columns = args.V - first < most_turn_columns ? args.V - first : most_turn_columns;
      if (!one_turn) fetch(first, columns);
      const bool anew = !one_turn || chunk == chunks - 1; // else dS is that at the end of the chunk after this one
      if (anew) load_tiles<K>(dS, after, args, warp, first, columns, lane);
#pragma unroll 1
      for (int later = anew ? chunks - 1 : chunk + 1; later > chunk; --later)
        move_tiles<K>(dS, decay(later), keys(later, Stage::qd), keys(later, Stage::bd), rows(at.d_o(), later), rows(at.Y(), later),
                      at.value_row, columns, channel, lane);
      StateTiles S;
      load_tiles<K>(S, before, args, warp, first, columns, lane);
      read_tiles(A, C, dS, rows(at.W(), chunk), rows(at.V(), chunk), at.value_row, columns, lane);
#pragma unroll 1
      for (int earlier = 0; earlier < chunk; ++earlier)
        move_tiles<K>(S, decay(earlier), keys(earlier, Stage::ar), keys(earlier, Stage::kr), rows(at.W(), earlier), rows(at.V(), earlier),
                      at.value_row, columns, channel, lane);
      read_tiles(Q, B, S, rows(at.d_o(), chunk), rows(at.Y(), chunk), at.value_row, columns, lane);
#pragma unroll
      for (int tile = 0; tile < most_turn_columns / 8; ++tile)
#pragma unroll
        for (int e = 0; e < 4; ++e) kept[e / 2] += S[tile][e] * dS[tile][e];
    }
    store_product<K>(Q, base + Layout::Q, channel, lane);
    store_product<K>(B, base + Layout::B, channel, lane);
    store_product<K>(A, base + Layout::A, channel, lane);
    store_product<K>(C, base + Layout::C, channel, lane);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      kept[half] += shuffle_xor(kept[half], 1);
      kept[half] += shuffle_xor(kept[half], 2);
      const int row = channel + 8 * half + static_cast<int>(lane / 4);
      if (lane % 4 == 0) store_shared(base + Layout::kept + 4 * row, kept[half] * load_shared_float(decay(chunk) + 4 * row));
    }
    copy_async_wait<0>();
    sync_block();
    const int left = segment.tokens - chunk_tokens * chunk;
    put_decays<K>(args, base, gate, bias, left);
    sync_block();
    finish_channel<K, half_precision>(base, chunk, args.scale);
    sync_block();
    write_own_rows<K>(gradient, base, segment, chunk, head, gate, bias, bias_sum, A_sum);
#pragma unroll 1
    for (int which = 0; which < 2; ++which) {
      const bool of_q = which == 0;
      write_general_keys<K, half_precision>(args, base + (of_q ? Layout::Q : Layout::C), base + Layout::raw + (of_q ? 0 : Layout::raw_rows),
                                            of_q ? last.dq : last.dk, of_q ? last.dq_format : last.dk_format,
                                            of_q ? last.group_q : last.group_k, segment, chunk, head, head_q);
    }
    sync_block();
  }
  if (last.partial_bias == nullptr) return;
  const std::int64_t place = slot * args.HV + head;
  store_shared(base + Layout::flow + 4 * (own.first * K + own.channel), bias_sum);
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) A_sum += shuffle_xor(A_sum, mask);
  if (lane == 0) store_shared(base + Layout::sums + 4 * warp, A_sum);
  sync_block();
  for (int c = static_cast<int>(thread_index()); c < K; c += 2 * K) {
    float sum = 0;
    for (int of = 0; of < own.step; ++of) sum += load_shared_float(base + Layout::flow + 4 * (of * K + c));
    last.partial_bias[place * K + c] = sum;
  }
  if (thread_index() == 0) {
    float sum = 0;
    for (int of = 0; of < K / 16; ++of) sum += load_shared_float(base + Layout::sums + 4 * of);
    last.partial_A[place] = sum;
  }
}

/// A block: one slot of the grid and one q/k head.
template <int K, bool half_precision> __device__ __forceinline__ void general_gradients_block(const GeneralGradients& gradient) {
  const GradientArguments& last = gradient.last;
  const ForwardArguments& args = last.call;
  const auto all = static_cast<unsigned>(args.H);
  const std::int64_t slot = block_index() / all;
  const int head_q = static_cast<int>(block_index() % all), heads = args.HV / args.H;
  const Segment segment = piece_of<segment_tokens>(args, slot);
  for (int head = head_q * heads; head < (head_q + 1) * heads; ++head) {
    if (segment.tokens > 0) {
      general_segment<K, half_precision>(gradient, segment, slot, head, head_q);
      sync_block();
    } else if (last.partial_bias != nullptr) {
      const std::int64_t place = slot * args.HV + head;
      for (int channel = static_cast<int>(thread_index()); channel < K; channel += 2 * K) last.partial_bias[place * K + channel] = 0;
      if (thread_index() == 0) last.partial_A[place] = 0;
    }
  }
}

} // namespace kdacheck::cuda
