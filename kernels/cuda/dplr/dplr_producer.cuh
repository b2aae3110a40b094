#pragma once
// The parallel half of the general rule's chunk kernel: one warp turns 16 tokens of q, k, g, a, b into a stage.
//
// As in chunk_producer.cuh a lane owns a pair of neighbouring channels of all 16 tokens, 64 channels a pass. Rows are read, decayed and
// written back where they lie; as operands of the state they are operands of the scores as well (dplr_scores.cuh), so that a chunk
// takes six bf16 roundings a channel and token. What the state needs is copied to the ring when its place there is free; the bench is
// then free for the next rows, before the triangle is solved.

#include "../chunk/chunk_producer.cuh"
#include "dplr_consumer.cuh"
#include "dplr_scores.cuh"

namespace kdacheck::cuda {

/// Starts copying a chunk's rows, each 16-byte segment to where `swizzled` has it.
template <int row_bytes>
__device__ __forceinline__ void start_swizzled(const View& view, Address to, Span span, std::int64_t first, int rows, int head,
                                               unsigned lane) {
  using Copy = RowCopy<row_bytes>;
  const Copy copy = copy_of<row_bytes>(view, span, head, 2, lane);
  const unsigned row = lane / Copy::segments, segment = lane % Copy::segments;
  const unsigned char* source = copy.from + first * copy.stride;
#pragma unroll
  for (int step = 0; step < Copy::steps; ++step, source += Copy::rows_at_once * copy.stride) {
    const unsigned now = row + step * Copy::rows_at_once;
    copy_async(to + now * row_bytes + 16 * (segment ^ (now & 7)), source, static_cast<int>(now) < rows ? 16 : 0);
  }
}

/// Starts copying q, k, a, b, g of a chunk; rows past the end of the sequence become zero.
template <int K>
__device__ __forceinline__ void fetch_general(const ForwardArguments& args, Address bench, Span span, int chunk, int head, int head_q,
                                              unsigned lane) {
  using Bench = GeneralBench<K>;
  const std::int64_t first = static_cast<std::int64_t>(chunk) * chunk_tokens, left = span.length - first;
  const int rows = left < chunk_tokens ? static_cast<int>(left) : chunk_tokens;
  start_swizzled<2 * K>(args.q, bench + Bench::q, span, first, rows, head_q, lane);
  start_swizzled<2 * K>(args.k, bench + Bench::k, span, first, rows, head_q, lane);
  start_swizzled<2 * K>(args.a, bench + Bench::a, span, first, rows, head, lane);
  start_swizzled<2 * K>(args.b, bench + Bench::b, span, first, rows, head, lane);
  if (args.gate != Gate::absent) {
    if (args.gate_format == Stored::fp32)
      copy_of<4 * K>(args.g, span, head, 4, lane).start(bench + Bench::raw_g, first, rows, lane);
    else
      copy_of<2 * K>(args.g, span, head, 2, lane).start(bench + Bench::raw_g, first, rows, lane);
  }
  copy_async_commit();
}

/// Writes 16 factors for q (scale included) and 16 for k to the bench. Two lanes a row, each half of it, in an order that keeps 8 lanes
/// on different banks; where in its row a segment lies does not matter to a norm.
template <int K, bool half_precision>
__device__ __forceinline__ void normalise_general(const ForwardArguments& args, Address bench, unsigned lane) {
  using Bench = GeneralBench<K>;
  const unsigned row = lane / 2, half = lane % 2;
  float factor_q = args.scale, factor_k = 1;
  if (args.l2norm) {
    constexpr unsigned segments = K / 16;
    const unsigned turn = segments == 8 ? lane : row;
    const Address rows = bench + row * (2 * K) + half * K;
    float qq = 0, kk = 0;
#pragma unroll 2
    for (unsigned s = 0; s < segments; ++s) {
      const unsigned offset = 16 * ((s + turn) % segments);
      std::uint32_t q_words[4], k_words[4];
      load_shared_quad(q_words, rows + Bench::q + offset);
      load_shared_quad(k_words, rows + Bench::k + offset);
#pragma unroll
      for (int m = 0; m < 4; ++m) {
        const Pair q = unpack<half_precision>(q_words[m]), k = unpack<half_precision>(k_words[m]);
        qq += q.x * q.x + q.y * q.y;
        kk += k.x * k.x + k.y * k.y;
      }
    }
    qq += shuffle_xor(qq, 1);
    kk += shuffle_xor(kk, 1);
    factor_q *= reciprocal_root(qq + 1e-6f);
    factor_k = reciprocal_root(kk + 1e-6f);
  }
  store_shared(bench + Bench::norms + 4 * (16 * half + row), half == 0 ? factor_q : factor_k);
}

/// First token before whose end some lane's channel has decayed beyond span_limit, or is not a number; 16 if there is none.
__device__ __forceinline__ int first_steep(const Pair (&g)[16]) {
  Pair sum{0, 0};
  float first = 16;
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    sum = {sum.x + g[i].x, sum.y + g[i].y};
    if (!(sum.x >= -span_limit && sum.y >= -span_limit) && first == 16) first = static_cast<float>(i);
  }
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) first = fminf(first, shuffle_xor(first, mask));
  return static_cast<int>(first);
}

/// Where this lane's channel pair of a token's row of b lies; of q, a, k a constant further.
template <int K> __device__ __forceinline__ Address pair_of(Address bench, int token, int pass, unsigned lane) {
  return bench + swizzled(token, 64 * pass + 2 * lane, 2 * K);
}
__device__ __forceinline__ void put_pair(Address to, Pair value) { store_shared(to, pack_bf16(value.x, value.y)); }

/// Four tokens of a lane's channel pair, as they lie on the bench: rows, sums of log2 decay, factors.
struct Quad {
  std::uint32_t row[4][4];
  Pair sum[4];
  float norm_q[4], norm_k[4];
};

/// The 64 channels of a pass: turns the rows on the bench into operands of the state, adds their products to the scores. The sums of log2
/// decay lie where the columns of the scores go. Four tokens are on their way while the four before are worked on; the loop keeps the
/// instructions few, which must all come from a small cache.
template <int K, bool half_precision>
__device__ __forceinline__ void decay_rows(float (&score)[8][4], Address bench, Pair whole, int pass, unsigned lane) {
  using Bench = GeneralBench<K>;
  const auto read = [&](Quad& quad, int first, int place) { // place = first % 8
    load_shared_quad(quad.norm_q, bench + Bench::norms + 4 * first);
    load_shared_quad(quad.norm_k, bench + Bench::norms + 64 + 4 * first);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const Address row = pair_of<K>(bench, place + e, pass, lane) + 2 * K * (first - place);
      const Address column = bench + Bench::scores + swizzled(place + e, 2 * lane, 128) + 128 * (first - place);
      quad.sum[e] = {load_shared_float(column), load_shared_float(column + 16 * 128)};
      quad.row[e][0] = load_shared_word(row + Bench::b);
      quad.row[e][1] = load_shared_word(row + Bench::q);
      quad.row[e][2] = load_shared_word(row + Bench::a);
      quad.row[e][3] = load_shared_word(row + Bench::k);
    }
  };
  Pair decayed{1, 1}; // by all tokens before
  const auto work = [&](const Quad& quad, int first, int place) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const Address row = pair_of<K>(bench, place + e, pass, lane) + 2 * K * (first - place);
      const Address column = bench + Bench::scores + swizzled(place + e, 2 * lane, 128) + 128 * (first - place);
      const Pair sum = quad.sum[e], grown{exp2_approximate(-sum.x), exp2_approximate(-sum.y)};
      put_pair(row + Bench::b, unpack<half_precision>(quad.row[e][0]) * decayed);
      decayed = {exp2_approximate(sum.x), exp2_approximate(sum.y)};
      put_pair(row + Bench::q, unpack<half_precision>(quad.row[e][1]) * Pair{quad.norm_q[e], quad.norm_q[e]} * decayed);
      const Pair a = unpack<half_precision>(quad.row[e][2]) * grown;
      const Pair k = unpack<half_precision>(quad.row[e][3]) * Pair{quad.norm_k[e], quad.norm_k[e]} * grown;
      put_pair(column, a);
      put_pair(column + 16 * 128, k);
      put_pair(row + Bench::a, a * whole);
      put_pair(row + Bench::k, k * whole);
    }
  };
  Quad even, odd;
  read(even, 0, 0);
#pragma unroll 1
  for (int first = 0; first < chunk_tokens; first += 8) {
    read(odd, first + 4, 4);
    work(even, first, 0);
    if (first == 0) read(even, 8, 0);
    work(odd, first + 4, 4);
  }
  sync_warp();
  multiply_scores<K, false>(score, bench, pass, chunk_tokens, lane);
  sync_warp();
}

/// The same where tokens from `good` on have decayed beyond span_limit: they have no columns, and their rows' scores come from
/// score_steep.
template <int K, bool half_precision>
__device__ __forceinline__ void decay_steep_rows(float (&score)[8][4], Address bench, const Pair (&g)[16], int good, int pass,
                                                 unsigned lane) {
  using Bench = GeneralBench<K>;
  Pair sum{0, 0}, decayed{1, 1};
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    const Address row = pair_of<K>(bench, i, pass, lane), column = bench + Bench::scores + swizzled(i, 2 * lane, 128);
    const float norm_q = load_shared_float(bench + Bench::norms + 4 * i), norm_k = load_shared_float(bench + Bench::norms + 64 + 4 * i);
    sum = {sum.x + g[i].x, sum.y + g[i].y};
    const Pair grown{exp2_approximate(-sum.x), exp2_approximate(-sum.y)};
    put_pair(row + Bench::b, unpack<half_precision>(load_shared_word(row + Bench::b)) * decayed);
    decayed = {exp2_approximate(sum.x), exp2_approximate(sum.y)};
    put_pair(row + Bench::q, unpack<half_precision>(load_shared_word(row + Bench::q)) * Pair{norm_q, norm_q} * decayed);
    const Pair a = unpack<half_precision>(load_shared_word(row + Bench::a)) * grown;
    const Pair k = unpack<half_precision>(load_shared_word(row + Bench::k)) * Pair{norm_k, norm_k} * grown;
    put_pair(column, i < good ? a : Pair{0, 0}); // growth may have overflowed
    put_pair(column + 16 * 128, i < good ? k : Pair{0, 0});
  }
  Pair left{1, 1};
#pragma unroll
  for (int i = 15; i >= 0; --i) {
    const Address row = pair_of<K>(bench, i, pass, lane);
    const float norm = load_shared_float(bench + Bench::norms + 64 + 4 * i);
    put_pair(row + Bench::a, unpack<half_precision>(load_shared_word(row + Bench::a)) * left);
    put_pair(row + Bench::k, unpack<half_precision>(load_shared_word(row + Bench::k)) * Pair{norm, norm} * left);
    left = left * Pair{exp2_approximate(g[i].x), exp2_approximate(g[i].y)};
  }
  sync_warp();
  multiply_scores<K, true>(score, bench, pass, good, lane);
  sync_warp();
}

/// Sums of log2 decay of this lane's channels of a pass, put where decay_rows looks for them.
struct Decays {
  Pair whole; ///< decay by all tokens
  bool mild;  ///< none of the sums is beyond span_limit or not a number
};
template <int K>
__device__ __forceinline__ Decays sum_decays(const ForwardArguments& args, Address bench, HeadGate head, Address biases, int pass,
                                             int tokens, unsigned lane) {
  using Bench = GeneralBench<K>;
  const unsigned channel = 64 * pass + 2 * lane;
  const Pair bias = load_shared_pair(biases + 4 * channel);
  const float bound = args.lower_bound * log2_e;
  Pair sum{0, 0};
  float least = 0;
#pragma unroll 1
  for (int first = 0; first < chunk_tokens; first += 8) {
    Pair g[8] = {};
    if (args.gate_format == Stored::fp32) {
      if (args.gate != Gate::absent)
#pragma unroll
        for (int e = 0; e < 8; ++e) g[e] = load_shared_pair(bench + Bench::raw_g + 4 * ((first + e) * K + channel));
    } else if (args.gate != Gate::absent) {
      const bool bf16 = args.gate_format == Stored::bf16;
#pragma unroll
      for (int e = 0; e < 8; ++e) {
        const std::uint32_t word = load_shared_word(bench + Bench::raw_g + 2 * ((first + e) * K + channel));
        g[e] = bf16 ? unpack_bf16(word) : unpack_fp16(word);
      }
    }
    if (args.gate == Gate::log_decay) {
#pragma unroll
      for (int e = 0; e < 8; ++e) g[e] = {g[e].x * log2_e, g[e].y * log2_e};
    } else if (args.gate == Gate::bounded) {
#pragma unroll
      for (int e = 0; e < 8; ++e)
        g[e] = {log2_decay_bounded(g[e].x, bias.x, head.growth_log2, bound), log2_decay_bounded(g[e].y, bias.y, head.growth_log2, bound)};
    } else if (args.gate != Gate::absent) {
#pragma unroll
      for (int e = 0; e < 8; ++e)
        g[e] = {log_decay(args.gate, g[e].x, bias.x, head.growth, 0) * log2_e,
                log_decay(args.gate, g[e].y, bias.y, head.growth, 0) * log2_e};
    }
#pragma unroll
    for (int e = 0; e < 8; ++e) {
      if (first + e < tokens) sum = {sum.x + g[e].x, sum.y + g[e].y};
      const Address column = bench + Bench::scores + swizzled(e, 2 * lane, 128) + 128 * first;
      store_shared(column, sum.x);
      store_shared(column + 16 * 128, sum.y);
      least = fminf(least, fminf(sum.x, sum.y));
    }
  }
  return {{exp2_gradual(sum.x), exp2_gradual(sum.y)}, least >= -span_limit && sum.x == sum.x && sum.y == sum.y};
}

/// Turns what lies on the bench into a stage, in shared or in global memory. `begin_next` is called once the bench is free for other rows,
/// `await_stage` before the stage is written.
template <int K, bool half_precision, class Place, class BeginNext, class AwaitStage>
__device__ __forceinline__ void prepare_general(const ForwardArguments& args, Address bench, Place stage, HeadGate head, Address biases,
                                                int tokens, unsigned lane, BeginNext begin_next, AwaitStage await_stage) {
  using Bench = GeneralBench<K>;
  using Stage = GeneralStage<K>;
  float score[8][4] = {};
  SteepScores level;
  bool any_steep = false;
#pragma unroll 1
  for (int pass = 0; pass < K / 64; ++pass) {
    const Decays decays = sum_decays<K>(args, bench, head, biases, pass, tokens, lane);
    store_shared(bench + Bench::decay + 4 * (64 * pass + 2 * lane), decays.whole);
    if (any_lane(!decays.mild)) [[unlikely]] {
      Pair g[16];
      read_gate<K, Bench::raw_g>(g, args, bench, head, biases, pass, tokens, lane);
      if (!any_steep) {
#pragma unroll
        for (int e = 0; e < 32; ++e) level[e / 8][e / 4 % 2][e % 4] = 0;
      }
      any_steep = true;
      const int good = first_steep(g);
      score_steep<K, half_precision>(level, bench, g, good, pass, lane);
      decay_steep_rows<K, half_precision>(score, bench, g, good, pass, lane);
    } else {
      decay_rows<K, half_precision>(score, bench, decays.whole, pass, lane);
    }
  }
  if (any_steep) [[unlikely]]
    add_steep<K>(score, level, bench, lane);
  const Address L = bench + Bench::scores; // transposed: [column][row]
#pragma unroll
  for (int tile = 0; tile < 2; ++tile)
#pragma unroll
    for (int e = 0; e < 4; ++e) store_shared(L + 4 * (16 * (8 * tile + 2 * (lane % 4) + e % 2) + lane / 4 + 8 * (e / 2)), score[tile][e]);
  sync_warp();
  if (args.staged) solve<false, 16>(L, -1.0f, lane);
  await_stage();
  constexpr int batch = 8;
#pragma unroll 1
  for (int at = 16 * static_cast<int>(lane); at < Stage::rows_bytes; at += batch * 512) {
    std::uint32_t words[batch][4];
#pragma unroll
    for (int i = 0; i < batch; ++i) load_shared_quad(words[i], bench + at + i * 512);
#pragma unroll
    for (int i = 0; i < batch; ++i) store_stage(stage + at + i * 512, words[i]);
  }
  if (16 * lane < K * 4) {
    std::uint32_t words[4];
    load_shared_quad(words, bench + Bench::decay + 16 * lane);
    store_stage(stage + Stage::decay + 16 * lane, words);
  }
  put_lower<true>(stage + Stage::M, score[2], score[3], lane);
  put_lower<false>(stage + Stage::Aqa, score[4], score[5], lane);
  put_lower<false>(stage + Stage::Aqk, score[6], score[7], lane);
  sync_warp();
  begin_next();
  if (!args.staged) solve<false, 16>(L, -1.0f, lane);
  write_tile<1>(stage + Stage::T, L, lane);
}

/// Every `step`-th chunk of a gang's from `first` on.
template <int K, bool half_precision, bool dealt>
__device__ __forceinline__ void prepare_chunks(const ForwardArguments& args, const Ring& ring, Address bench, int gang, int first, int step,
                                               unsigned own_lane) {
  using Bench = GeneralBench<K>;
  constexpr int stage_bytes = GeneralStage<K>::bytes;
  int turn = first; // of the gang's chunks, this warp's next one
  Stretch stretch;
#pragma unroll 1
  for (int number = 0; stretch_of<dealt>(args, gang, number, stretch); ++number) {
    const unsigned lane = dealt ? renewed(own_lane) : own_lane; // as in consume(): what is known before is worked out before, and spilled
    const int head = stretch.unit % args.HV, head_q = head / (args.HV / args.H);
    const Span span = span_of(args, stretch.unit / args.HV);
    const HeadGate gate = gate_of(args, head);
    for (unsigned c = lane; c < K; c += 32)
      store_shared(bench + Bench::biases + 4 * c, args.dt_bias != nullptr ? args.dt_bias[static_cast<std::int64_t>(head) * K + c] : 0.0f);
    const int shifted = stretch.first - stretch.done; // from a turn to the unit's chunk
    if (turn + shifted < stretch.last) fetch_general<K>(args, bench, span, turn + shifted, head, head_q, lane);
    for (; turn + shifted < stretch.last; turn += step) {
      const int chunk = turn + shifted;
      const std::int64_t left = span.length - static_cast<std::int64_t>(chunk) * chunk_tokens;
      const int tokens = left < chunk_tokens ? static_cast<int>(left) : chunk_tokens;
      copy_async_wait<0>();
      sync_warp();
      normalise_general<K, half_precision>(args, bench, lane);
      store_shared(bench + Bench::diagonal + 4 * lane, 0.0f);
      sync_warp();
      const int stage = turn % ring.count, round = turn / ring.count;
      const Address place = ring.stages + stage * stage_bytes;
      prepare_general<K, half_precision>(
          args, bench, place, gate, bench + Bench::biases, tokens, lane,
          [&] {
            if (chunk + step < stretch.last) fetch_general<K>(args, bench, span, chunk + step, head, head_q, lane);
          },
          [&] { await_turn(ring, stage, round); });
      if (ring.sharing > 1) fence_async();
      sync_warp();
      send_stage<stage_bytes>(ring, place, stage, false, lane);
      sync_warp();
      if (lane == 0) word_set(ring.rounds(stage), static_cast<std::uint32_t>(round + 1));
    }
    if constexpr (!dealt) break;
  }
}

/// The consumer's part. Inlined where a gang has one unit; `dealt`, a function: beside it the compiler spills 1,600 bytes of the producer's
/// registers where it spills 150 without. (The producer as a function reads its arguments through memory: a third slower.)
template <int K, bool half_precision, bool dealt>
__device__ __forceinline__ void consume_general(const ForwardArguments& args, const Ring& ring, Address area, int gang, int column,
                                                unsigned lane) {
  consume<K, GeneralStage<K>::bytes, half_precision, dealt>(
      args, ring, area, gang, column, lane, [](float(&S)[K / 8][4], float(&O)[2][4], Address stage, Address values, unsigned own_lane) {
        advance_general<K, half_precision>(S, O, stage, values, own_lane);
      });
}
template <int K, bool half_precision>
__device__ __noinline__ void consume_dealt(const ForwardArguments& args, Ring ring, Address area, int gang, int column, unsigned lane) {
  consume_general<K, half_precision, true>(args, ring, area, gang, column, lane);
}

/// A block: a gang's, or a slice of one unit's value columns.
template <int K, bool half_precision, bool dealt> __device__ __forceinline__ void general_forward_block(const ForwardArguments& args) {
  gang_block<dealt>(
      args, GeneralStage<K>::bytes, GeneralBench<K>::bytes(args.gate_format == Stored::fp32 ? 4 : 2), 0,
      [&](const Ring& ring, Address bench, Address, int gang, int first, unsigned lane) {
        prepare_chunks<K, half_precision, dealt>(args, ring, bench, gang, first, args.sharing * args.producer_warps, lane);
      },
      [&](const Ring& ring, Address area, int gang, int column, unsigned lane) {
        if constexpr (dealt)
          consume_dealt<K, half_precision>(args, ring, area, gang, column, lane);
        else
          consume_general<K, half_precision, false>(args, ring, area, gang, column, lane);
      });
}

} // namespace kdacheck::cuda
