#pragma once
// The parallel half of the chunk kernel: one warp turns 16 tokens of q, k, g, beta into a stage. Nothing here waits for
// the state, so that warps work on different chunks at a time.
//
// A lane owns a pair of neighbouring channels (64 channels a pass) of all 16 tokens: running sums and products over tokens
// stay in its registers; only the norms need other lanes.

#include "chunk_stream.cuh"

namespace kdacheck::cuda {

/// Where a pair of channels of row `row` lies in a part of a stage in shared or in global memory.
template <int K> __device__ __forceinline__ Address place_in_stage(Address stage, unsigned row, unsigned channel) {
  return row_further(stage + swizzled(0, channel, 2 * K), row, 2 * K);
}
template <int K> __device__ __forceinline__ unsigned char* place_in_stage(unsigned char* stage, unsigned row, unsigned channel) {
  return stage + swizzled(row, channel, 2 * K);
}

/// Writes a row's pair of channels to a part of the stage.
template <int K, class Layout, class Place>
__device__ __forceinline__ void put_row(const Pass<Place>& pass, int place, int row, Pair value) {
  store_stage(place_in_stage<K>(pass.stage, static_cast<unsigned>(row), 64 * pass.number + 2 * pass.lane) + place,
              pack_bf16(value.x, value.y));
}

/// Scores of a pass in one bf16 term, as two 16x16 tiles, and its part of the stage but for the decays. `alpha` holds log2 decays, `decay`
/// their sum.
template <int K, bool half_precision, Sweep sweep, class Place, class AwaitStage>
__device__ __forceinline__ void anchored_pass(const ForwardArguments& args, const Pass<Place>& pass, Tiles& tiles, Pair (&alpha)[16],
                                              const Pair (&q)[16], Pair (&k)[16], Pair decay, AwaitStage await_stage) {
  using Bench = WorkbenchLayout<K, 1, sweep>;
  using Layout = StageLayout<K, 1, sweep>;
  constexpr bool with_q = sweep != Sweep::states;
  const unsigned lane = pass.lane;
  const std::uint32_t strong = strong_tokens(alpha, decay, args.gate == Gate::log_decay);
#pragma unroll
  for (int i = 0; i < 16; ++i) alpha[i] = {exp2_approximate(alpha[i].x), exp2_approximate(alpha[i].y)};
  const Address columns = pass.bench + Bench::score_rows;
  const auto rows = [&]() -> TileRows { // of kd and qd, where the tensor cores can read them
    if constexpr (sweep == Sweep::stored)
      return {columns + Bench::score_row_piece, columns + 2 * Bench::score_row_piece, 0, 128};
    else
      return {pass.stage + Layout::kd, pass.stage + Layout::qd, 64 * static_cast<unsigned>(pass.number), 2 * K};
  }();
  if (pass.number == 0) await_stage();
  if (strong != 0) { // first, while keys and decays are as they were
    add_strong<1, with_q>(tiles, columns, k, q, alpha, strong, lane);
    Pair factor{1, 1};
#pragma unroll
    for (int i = 15; i >= 0; --i) {
      put_row<K, Layout>(pass, Layout::kr, i, k[i] * factor);
      factor = factor * alpha[i];
    }
    sync_warp();
  }
  Pair factor{1, 1};
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    factor = factor * alpha[i];
    const Pair kd = k[i] * factor;
    put_row<K, Layout>(pass, Layout::kd, i, kd);
    if constexpr (sweep == Sweep::stored) store_shared(row_further(rows.k + 4 * lane, i, 128), pack_bf16(kd.x, kd.y));
    if constexpr (with_q) {
      const Pair qd = q[i] * factor;
      put_row<K, Layout>(pass, Layout::qd, i, qd);
      if constexpr (sweep == Sweep::stored) store_shared(row_further(rows.q + 4 * lane, i, 128), pack_bf16(qd.x, qd.y));
    }
    k[i] = k[i] * Pair{reciprocal_approximate(factor.x), reciprocal_approximate(factor.y)};
    store_shared(row_further(columns + 4 * lane, i, 128), pack_bf16(k[i].x, k[i].y));
  }
  if (strong == 0) {
#pragma unroll
    for (int i = 0; i < 16; ++i) put_row<K, Layout>(pass, Layout::kr, i, k[i] * factor);
    sync_warp();
    tiles.template add<with_q>(columns, rows, lane);
  } else {
    sync_warp();
    Tiles weak = tiles; // columns of strong tokens, finite or not, only meet rows of strong tokens and what lies above the diagonal
    weak.template add<with_q>(columns, rows, lane);
    tiles.template take<with_q>(weak, ~strong, lane);
  }
}

/// The same in any number of terms, level by level (chunk_scores.cuh). `alpha` holds decays.
template <int K, int pieces, Sweep sweep, class Place, class AwaitStage>
__device__ __forceinline__ void levelled_pass(const Pass<Place>& pass, float (&tiles)[4][4], const Pair (&alpha)[16], const Pair (&q)[16],
                                              const Pair (&k)[16], AwaitStage await_stage) {
  using Layout = StageLayout<K, pieces, sweep>;
  constexpr bool with_q = sweep != Sweep::states;
  add_levels<pieces, with_q>(tiles, pass.bench + WorkbenchLayout<K, pieces, sweep>::score_rows, k, q, alpha, pass.lane);
  if (pass.number == 0) await_stage();
  const auto put = [&]<int of>(int place, int row, Pair value) {
    const Terms<of> terms = split<of>(value.x, value.y);
#pragma unroll
    for (int piece = 0; piece < terms_of(of); ++piece)
      store_stage(pass.stage + place + piece * Layout::piece + swizzled(row, 64 * pass.number + 2 * pass.lane, 2 * K), terms.word[piece]);
  };
  Pair factor{1, 1};
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    factor = factor * alpha[i];
    put.template operator()<pieces>(Layout::kd, i, k[i] * factor);
    if constexpr (with_q) put.template operator()<pieces>(Layout::qd, i, q[i] * factor);
  }
  factor = {1, 1};
#pragma unroll
  for (int i = 15; i >= 0; --i) {
    put.template operator()<terms_of_kr(pieces)>(Layout::kr, i, k[i] * factor);
    factor = factor * alpha[i];
  }
}

/// Turns what lies on the bench into a stage. `begin_next` is called once the raw rows are no longer needed, `await_stage`
/// before the stage is written: as late as can be, so that fewer stages than producers do not make them wait.
template <int K, int pieces, bool half_precision, Sweep sweep, bool narrow = false, class Place, class BeginNext, class AwaitStage>
__device__ __forceinline__ void produce(const ForwardArguments& args, Address bench, Place stage, HeadGate head, Address biases, int tokens,
                                        unsigned lane, BeginNext begin_next, AwaitStage await_stage) {
  using Bench = WorkbenchLayout<K, pieces, sweep>;
  using Layout = StageLayout<K, pieces, sweep>;
  constexpr bool with_q = sweep != Sweep::states, streamed = pieces == mixed_terms, anchored = pieces == 1 || streamed;
  std::conditional_t<anchored, Tiles, float[4][4]> tiles{};
#pragma unroll 1
  for (int number = 0; number < K / 64; ++number) {
    const unsigned channel = 64 * number + 2 * lane;
    const Pass<Place> pass{bench, stage, number, lane};
    Pair decay{0, 0};
    if constexpr (streamed) {
      streamed_pass<K, half_precision, narrow>(args, pass, tiles, head, biases, tokens, decay, await_stage);
    } else {
      Pair alpha[16], q[16], k[16];
      read_gate<K, Bench::raw_g, narrow>(alpha, args, bench, head, biases, number, tokens, lane);
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        decay = {decay.x + alpha[i].x, decay.y + alpha[i].y};
        if constexpr (!anchored) alpha[i] = {exp2_approximate(alpha[i].x), exp2_approximate(alpha[i].y)};
      }
#pragma unroll
      for (int quad = 0; quad < 4; ++quad) {
        float norm_q[4], norm_k[4];
        if constexpr (with_q) load_shared_quad(norm_q, bench + Bench::norms + 16 * quad);
        load_shared_quad(norm_k, bench + Bench::norms + 64 + 16 * quad);
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int i = 4 * quad + e;
          const unsigned offset = i * Bench::raw_row + 2 * channel;
          if constexpr (with_q) q[i] = unpack<half_precision>(load_shared_word(bench + Bench::raw_q + offset)) * Pair{norm_q[e], norm_q[e]};
          k[i] = unpack<half_precision>(load_shared_word(bench + Bench::raw_k + offset)) * Pair{norm_k[e], norm_k[e]};
        }
      }
      if constexpr (anchored)
        anchored_pass<K, half_precision, sweep>(args, pass, tiles, alpha, q, k, decay, await_stage);
      else
        levelled_pass<K, pieces, sweep>(pass, tiles, alpha, q, k, await_stage);
    }
    store_stage(stage + Layout::decay + 4 * channel, exp2_gradual(decay.x));
    store_stage(stage + Layout::decay + 4 * channel + 4, exp2_gradual(decay.y));
    if constexpr (anchored) sync_warp(); // the operands of scores are written again
  }
  begin_next(); // all lanes have read the raw rows: they met since
  const Address L = bench + Bench::L, betas = bench + Bench::norms + 128;
  if constexpr (anchored)
    tiles.template store<pieces, sweep>(betas, bench + Bench::diagonal, L, stage + Layout::Aqk, lane);
  else
    scatter_levels<pieces, sweep>(tiles, betas, bench + Bench::diagonal, L, bench + Bench::Aqk, stage + Layout::Aqk, lane);
  sync_warp();
  const float beta_j = load_shared_float(betas + 4 * (lane % 16));
  if constexpr (sweep != Sweep::forward)
    if (sweep == Sweep::stored || lane < 16) store_stage(stage + Layout::betas + 4 * lane, beta_j);
  solve<sweep == Sweep::stored>(L, sweep == Sweep::forward ? beta_j : 1.0f, lane);
  write_tile<pieces>(stage + Layout::T, L, lane);
  if constexpr (sweep == Sweep::stored) write_tile<pieces>(stage + Layout::T_states, L + matrix_bytes, lane);
}

} // namespace kdacheck::cuda
