#pragma once
// A pass of 64 channels of a chunk, token by token, where terms are mixed (chunk_layout.cuh): scores as one tile in tf32 (chunk_tile.cuh).
// Loops, not straight lines, since what a block's warps go through must stay where instructions are at hand. By ncu on an H200 warps wait
// for code 23 % of their time where it is 47 KB in all, 25 % where it is 36 KB for four producers, 2 % where it is 30 KB for three.
//
// Nothing is kept in registers from one loop to the next but sums. Every lane has a *slot* on the bench for its two channels of each token,
// in fp32: first their decay e^g, then k_j e^{-G_j}, from which kr follows, and which is the tile's column as it lies. What else the tensor
// cores read lies where nothing is wanted any more: rows of k over the raw rows of this pass, which have just been read, rows of q over
// this pass's part of kr, which is written last.

#include "chunk_read.cuh"
#include "chunk_tile.cuh"

namespace kdacheck::cuda {

/// Tokens that a lane has in registers at once; eight or four.
inline constexpr int streamed_tokens = 4;

/// Places of a lane's pair of channels, each that of token 0.
template <int K> struct StreamedPlaces {
  using Bench = WorkbenchLayout<K, mixed_terms>;
  using Layout = StageLayout<K, mixed_terms>;
  Address slot, stage;
  Address raw;               ///< of the raw rows, which are not swizzled
  Address over_k, over_kr;   ///< of rows of k over raw rows, of rows of q over kr
  Address raw_part, kr_part; ///< where this pass's part of raw rows and of kr begins

  __device__ __forceinline__ StreamedPlaces(const Pass<Address>& pass) {
    const unsigned lane = pass.lane, part = 128 * static_cast<unsigned>(pass.number);
    slot = pass.bench + Bench::score_rows + 8 * lane;
    stage = pass.stage + part + 4 * lane;
    raw = pass.bench + part + 4 * lane;
    raw_part = pass.bench + part;
    kr_part = pass.stage + Layout::kr + part;
    const bool far = lane >= 16; // a row of 64 fp32 numbers takes two such parts
    over_k = raw_part + (far ? Bench::raw_k : Bench::raw_q) + 8 * (lane % 16);
    over_kr = kr_part + (far ? Layout::piece : 0) + 8 * (lane % 16);
  }
  /// The same place of token `group` * streamed_tokens + `e`.
  static __device__ __forceinline__ Address token(Address place, int group, int e, int row_bytes) {
    const int first = group * streamed_tokens; // places are multiples of 128, but for the channel
    const Address begin = (place ^ (16 * static_cast<unsigned>(first % 8))) + first * row_bytes;
    return (begin ^ (16 * static_cast<unsigned>(e))) + e * row_bytes;
  }
};

/// kd and qd to the stage, the tile's operands to where they go, k_j e^{-G_j} to the slots, which hold decays. Returns e^{G_C}.
template <int K, bool half_precision>
__device__ __forceinline__ Pair write_streamed_rows(const Pass<Address>& pass, const StreamedPlaces<K>& at) {
  using Bench = WorkbenchLayout<K, mixed_terms>;
  using Layout = StageLayout<K, mixed_terms>;
  Pair factor{1, 1};
#pragma unroll 1
  for (int group = 0; group < chunk_tokens / streamed_tokens; ++group) {
    std::uint32_t q_words[streamed_tokens], k_words[streamed_tokens];
    Pair alpha[streamed_tokens]; // all loads first: none is moved before a store
    float norm_q[streamed_tokens], norm_k[streamed_tokens];
#pragma unroll
    for (int e = 0; e < streamed_tokens; ++e) {
      const Address row = at.raw + (group * streamed_tokens + e) * Bench::raw_row;
      q_words[e] = load_shared_word(row + Bench::raw_q);
      k_words[e] = load_shared_word(row + Bench::raw_k);
      alpha[e] = load_shared_pair(at.token(at.slot, group, e, Bench::slot_row));
    }
#pragma unroll
    for (int quad = 0; quad < streamed_tokens / 4; ++quad) {
      const Address norms = pass.bench + Bench::norms + 4 * (group * streamed_tokens + 4 * quad);
      float of_q[4], of_k[4];
      load_shared_quad(of_q, norms);
      load_shared_quad(of_k, norms + 64);
#pragma unroll
      for (int e = 0; e < 4; ++e) norm_q[4 * quad + e] = of_q[e], norm_k[4 * quad + e] = of_k[e];
    }
    sync_warp(); // all lanes have read these raw rows
#pragma unroll
    for (int e = 0; e < streamed_tokens; ++e) {
      const Address to = at.token(at.stage, group, e, 2 * K);
      factor = factor * alpha[e];
      const Pair q = unpack<half_precision>(q_words[e]) * Pair{norm_q[e], norm_q[e]};
      const Pair k = unpack<half_precision>(k_words[e]) * Pair{norm_k[e], norm_k[e]};
      const Pair kd = k * factor, qd = q * factor;
      const Pair column = k * Pair{reciprocal_approximate(factor.x), reciprocal_approximate(factor.y)};
      store_shared(to + Layout::kd, pack_fp16(kd.x, kd.y));
      store_shared(to + Layout::qd, pack_fp16(qd.x, qd.y));
      store_shared(at.token(at.slot, group, e, Bench::slot_row), column);
      store_shared(at.token(at.over_k, group, e, Bench::raw_row), Pair{rounded_to_tf32(kd.x), rounded_to_tf32(kd.y)});
      store_shared(at.token(at.over_kr, group, e, 2 * K), Pair{rounded_to_tf32(qd.x), rounded_to_tf32(qd.y)});
    }
  }
  return factor;
}

/// Adds the products of what write_streamed_rows has written.
template <int K> __device__ __forceinline__ void add_streamed(Tiles& tiles, const Pass<Address>& pass, const StreamedPlaces<K>& at) {
  using Bench = WorkbenchLayout<K, mixed_terms>;
  using Layout = StageLayout<K, mixed_terms>;
  tiles.add_tf32(pass.bench + Bench::score_rows, {at.raw_part + Bench::raw_q, Bench::raw_k - Bench::raw_q, Bench::raw_row},
                 {at.kr_part, Layout::piece, 2 * K}, pass.lane);
}

template <int K> __device__ __forceinline__ void put_kr(const StreamedPlaces<K>& at, int group, int e, const Terms<2>& terms) {
  using Layout = StageLayout<K, mixed_terms>;
#pragma unroll
  for (int piece = 0; piece < 2; ++piece)
    store_shared(at.token(at.stage, group, e, 2 * K) + Layout::kr + piece * Layout::piece, terms.word[piece]);
}

/// A pass with a strong token: its rows level by level, and kr from decays alone.
template <int K, bool half_precision, bool narrow>
__device__ __forceinline__ void strong_pass(const ForwardArguments& args, const Pass<Address>& pass, const StreamedPlaces<K>& at,
                                            Tiles& tiles, HeadGate head, Address biases, int tokens) {
  using Bench = WorkbenchLayout<K, mixed_terms>;
  const unsigned lane = pass.lane;
  Pair alpha[16], q[16], k[16];
  read_gate<K, Bench::raw_g, narrow>(alpha, args, pass.bench, head, biases, pass.number, tokens, lane);
  const std::uint32_t strong = strong_tokens(alpha, {0, 0}, true);
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    alpha[i] = {exp2_approximate(alpha[i].x), exp2_approximate(alpha[i].y)};
    const float norm_q = load_shared_float(pass.bench + Bench::norms + 4 * i),
                norm_k = load_shared_float(pass.bench + Bench::norms + 64 + 4 * i);
    q[i] = unpack<half_precision>(load_shared_word(at.raw + Bench::raw_q + i * Bench::raw_row)) * Pair{norm_q, norm_q};
    k[i] = unpack<half_precision>(load_shared_word(at.raw + Bench::raw_k + i * Bench::raw_row)) * Pair{norm_k, norm_k};
  }
  sync_warp();
  add_strong<mixed_terms, true>(tiles, pass.bench + Bench::score_rows, k, q, alpha, strong, lane);
  sync_warp();
  Terms<2> kr[16];
  Pair factor{1, 1};
#pragma unroll
  for (int i = 15; i >= 0; --i) {
    store_shared(at.token(at.slot, i / streamed_tokens, i % streamed_tokens, Bench::slot_row), alpha[i]);
    const Pair decayed = k[i] * factor;
    kr[i] = split<2>(decayed.x, decayed.y);
    factor = factor * alpha[i];
  }
  write_streamed_rows<K, half_precision>(pass, at);
  sync_warp();
  Tiles weak = tiles;
  add_streamed<K>(weak, pass, at);
  tiles.template take<true>(weak, ~strong, lane);
  sync_warp();
#pragma unroll
  for (int i = 0; i < 16; ++i) put_kr<K>(at, i / streamed_tokens, i % streamed_tokens, kr[i]);
}

/// Scores of a pass, and its part of the stage but for the decays, whose sum `decay` becomes. `await_stage` is called before anything is
/// written to the stage.
template <int K, bool half_precision, bool narrow, class AwaitStage>
__device__ __forceinline__ void streamed_pass(const ForwardArguments& args, const Pass<Address>& pass, Tiles& tiles, HeadGate head,
                                              Address biases, int tokens, Pair& decay, AwaitStage await_stage) {
  using Bench = WorkbenchLayout<K, mixed_terms>;
  constexpr int groups = chunk_tokens / streamed_tokens;
  const StreamedPlaces<K> at(pass);
  Fall fall;
#pragma unroll 1
  for (int group = 0; group < groups; ++group) {
    Pair g[streamed_tokens];
    read_gate<K, Bench::raw_g, narrow>(g, args, pass.bench, head, biases, pass.number, tokens, pass.lane, group * streamed_tokens);
#pragma unroll
    for (int e = 0; e < streamed_tokens; ++e) {
      fall.add(g[e]);
      decay = {decay.x + g[e].x, decay.y + g[e].y};
      store_shared(at.token(at.slot, group, e, Bench::slot_row), Pair{exp2_approximate(g[e].x), exp2_approximate(g[e].y)});
    }
  }
  if (pass.number == 0) await_stage();
  if (any_lane(fall.strong())) [[unlikely]] {
    strong_pass<K, half_precision, narrow>(args, pass, at, tiles, head, biases, tokens);
    return;
  }
  const Pair factor = write_streamed_rows<K, half_precision>(pass, at);
  sync_warp();
  add_streamed<K>(tiles, pass, at);
  sync_warp(); // rows of q have been read
#pragma unroll 1
  for (int group = 0; group < groups; ++group) {
    Pair kr[streamed_tokens];
#pragma unroll
    for (int e = 0; e < streamed_tokens; ++e) kr[e] = load_shared_pair(at.token(at.slot, group, e, Bench::slot_row)) * factor;
#pragma unroll
    for (int e = 0; e < streamed_tokens; ++e) put_kr<K>(at, group, e, split<2>(kr[e].x, kr[e].y));
  }
}

} // namespace kdacheck::cuda
