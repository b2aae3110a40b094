#pragma once
// The parallel half of the chunk kernel: one warp turns 16 tokens of q, k, g, beta into a stage. Nothing here waits for
// the state, so that warps work on different chunks at a time.
//
// A lane owns a pair of neighbouring channels (64 channels a pass) of all 16 tokens: running sums and products over tokens
// stay in its registers; only the norms need other lanes.

#include "chunk_consumer.cuh"
#include "chunk_rows.cuh"
#include "chunk_scores.cuh"
#include "gate.cuh"

namespace kdacheck::cuda {

/// Constants of a head.
struct HeadGate {
  float growth = 1, growth_log2 = log2_e;
};

__device__ __forceinline__ HeadGate gate_of(const ForwardArguments& args, int head) {
  HeadGate gate;
  if (args.A_log != nullptr) {
    gate.growth = expf(args.A_log[head]);
    gate.growth_log2 = gate.growth * log2_e;
  }
  return gate;
}

template <bool half_precision> __device__ __forceinline__ Pair unpack(std::uint32_t word) {
  return half_precision ? unpack_fp16(word) : unpack_bf16(word);
}

/// Norms of the rows and the diagonal of Aqk: writes 16 factors for q (scale included), 16 for k and Aqk_ii to the bench. Two lanes a row,
/// each half of it, in an order that keeps 8 lanes on different banks.
template <int K, int pieces, bool half_precision, Sweep sweep = Sweep::forward>
__device__ __forceinline__ void normalise(const ForwardArguments& args, Address bench, unsigned lane) {
  using Bench = WorkbenchLayout<K, pieces, sweep>;
  constexpr unsigned segments = K / 16;
  const unsigned row = lane / 2, half = lane % 2, turn = segments == 8 ? lane : row;
  const Address rows = bench + row * Bench::raw_row + half * (K);
  float qq = 0, kk = 0, qk = 0;
#pragma unroll
  for (unsigned s = 0; s < segments; ++s) {
    const unsigned offset = 16 * ((s + turn) % segments);
    std::uint32_t q_words[4], k_words[4];
    if constexpr (sweep != Sweep::states) load_shared_quad(q_words, rows + Bench::raw_q + offset);
    load_shared_quad(k_words, rows + Bench::raw_k + offset);
#pragma unroll
    for (int m = 0; m < 4; ++m) {
      const Pair k = unpack<half_precision>(k_words[m]);
      kk += k.x * k.x + k.y * k.y;
      if constexpr (sweep != Sweep::states) {
        const Pair q = unpack<half_precision>(q_words[m]);
        qq += q.x * q.x + q.y * q.y;
        qk += q.x * k.x + q.y * k.y;
      }
    }
  }
  qq += shuffle_xor(qq, 1);
  kk += shuffle_xor(kk, 1);
  qk += shuffle_xor(qk, 1);
  const float factor_q = args.scale * (args.l2norm ? reciprocal_root(qq + 1e-6f) : 1.0f);
  const float factor_k = args.l2norm ? reciprocal_root(kk + 1e-6f) : 1.0f;
  store_shared(bench + Bench::norms + 4 * (16 * half + row), half == 0 ? factor_q : factor_k);
  if (half == 0) store_shared(bench + Bench::diagonal + 4 * row, qk * factor_q * factor_k);
}

/// Log2 decay of one channel; not for Gate::absent.
__device__ __forceinline__ float log2_decay(const ForwardArguments& args, HeadGate head, float x, float bias) {
  if (args.gate == Gate::log_decay) return x * log2_e;
  if (args.gate == Gate::bounded) return log2_decay_bounded(x, bias, head.growth_log2, args.lower_bound * log2_e);
  return log_decay(args.gate, x, bias, head.growth, 0) * log2_e;
}

/// Log2 decays of this lane's channels from what is stored; zero past the end of the sequence.
__device__ __forceinline__ void decays_of(Pair (&g)[16], const ForwardArguments& args, HeadGate head, Pair bias, int tokens) {
  if (args.gate == Gate::log_decay) {
#pragma unroll
    for (int i = 0; i < 16; ++i) g[i] = {g[i].x * log2_e, g[i].y * log2_e};
  } else if (args.gate == Gate::bounded) {
    const float bound = args.lower_bound * log2_e;
#pragma unroll
    for (int i = 0; i < 16; ++i)
      g[i] = {log2_decay_bounded(g[i].x, bias.x, head.growth_log2, bound), log2_decay_bounded(g[i].y, bias.y, head.growth_log2, bound)};
  } else {
#pragma unroll
    for (int i = 0; i < 16; ++i)
      g[i] = {log_decay(args.gate, g[i].x, bias.x, head.growth, 0) * log2_e, log_decay(args.gate, g[i].y, bias.y, head.growth, 0) * log2_e};
  }
  if (tokens < chunk_tokens) {
#pragma unroll
    for (int i = 0; i < 16; ++i)
      if (i >= tokens) g[i] = {0, 0};
  }
}

/// The rows of g lie at `raw_g` on the bench.
template <int K, int raw_g, bool narrow = false>
__device__ __forceinline__ void read_gate(Pair (&g)[16], const ForwardArguments& args, Address bench, HeadGate head, Address biases,
                                          int pass, int tokens, unsigned lane) {
  const unsigned channel = 64 * pass + 2 * lane;
  if (args.gate == Gate::absent || (narrow && static_cast<int>(channel) >= args.K)) {
#pragma unroll
    for (int i = 0; i < 16; ++i) g[i] = {0, 0};
    return;
  }
  if (args.gate_format == Stored::fp32) {
#pragma unroll
    for (int i = 0; i < 16; ++i) g[i] = load_shared_pair(bench + raw_g + 4 * (i * K + channel));
  } else {
    const bool bf16 = args.gate_format == Stored::bf16;
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      const std::uint32_t word = load_shared_word(bench + raw_g + 2 * (i * K + channel));
      g[i] = bf16 ? unpack_bf16(word) : unpack_fp16(word);
    }
  }
  decays_of(g, args, head, load_shared_pair(biases + 4 * channel), tokens);
}

/// Turns what lies on the bench into a stage. `begin_next` is called once the raw rows are no longer needed, `await_stage`
/// before the stage is written: as late as can be, so that fewer stages than producers do not make them wait.
template <int K, int pieces, bool half_precision, Sweep sweep, bool narrow = false, class Place, class BeginNext, class AwaitStage>
__device__ __forceinline__ void produce(const ForwardArguments& args, Address bench, Place stage, HeadGate head, Address biases, int tokens,
                                        unsigned lane, BeginNext begin_next, AwaitStage await_stage) {
  using Bench = WorkbenchLayout<K, pieces, sweep>;
  using Layout = StageLayout<K, pieces, sweep>;
  constexpr bool with_q = sweep != Sweep::states;
  float tiles[4][4] = {};
#pragma unroll 1
  for (int pass = 0; pass < K / 64; ++pass) {
    const unsigned channel = 64 * pass + 2 * lane;
    Pair alpha[16], q[16], k[16], decay{0, 0};
    read_gate<K, Bench::raw_g, narrow>(alpha, args, bench, head, biases, pass, tokens, lane);
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      decay = {decay.x + alpha[i].x, decay.y + alpha[i].y};
      alpha[i] = {exp2_approximate(alpha[i].x), exp2_approximate(alpha[i].y)};
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
    const Address even = bench + Bench::score_rows, odd = even + terms_of(pieces) * Bench::score_piece;
    if constexpr (Bench::score_sets == 2) {
      // Two sets of operand rows in turn: the products of one level run while the next level is written.
      write_level<1, pieces, with_q>(even, k, q, alpha, lane);
      sync_warp();
      multiply_level<pieces>(tiles[0], even, lane);
      write_level<2, pieces, with_q>(odd, k, q, alpha, lane);
      sync_warp();
      multiply_level<pieces>(tiles[1], odd, lane);
      write_level<4, pieces, with_q>(even, k, q, alpha, lane);
      sync_warp();
      multiply_level<pieces>(tiles[2], even, lane);
      write_level<8, pieces, with_q>(odd, k, q, alpha, lane);
      sync_warp();
      multiply_level<pieces>(tiles[3], odd, lane);
    } else {
      const auto level = [&]<int span>(float(&tile)[4]) {
        write_level<span, pieces, with_q>(even, k, q, alpha, lane);
        sync_warp();
        multiply_level<pieces>(tile, even, lane);
        sync_warp();
      };
      level.template operator()<1>(tiles[0]);
      level.template operator()<2>(tiles[1]);
      level.template operator()<4>(tiles[2]);
      level.template operator()<8>(tiles[3]);
    }
    if (pass == 0) await_stage();
    store_stage(stage + Layout::decay + 4 * channel, exp2_gradual(decay.x));
    store_stage(stage + Layout::decay + 4 * channel + 4, exp2_gradual(decay.y));
    const auto put = [&]<int of>(int place, int row, Pair value) {
      const Terms<of> terms = split<of>(value.x, value.y);
#pragma unroll
      for (int piece = 0; piece < terms_of(of); ++piece)
        store_stage(stage + place + piece * Layout::piece + swizzled(row, channel, 2 * K), terms.word[piece]);
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
  begin_next(); // all lanes have read the raw rows: they met in every level
  const Address L = bench + Bench::L, Aqk = bench + Bench::Aqk, betas = bench + Bench::norms + 128;
  if constexpr (with_q) { // Aqk's place held operands: all have been read before or with the products of the last level
    const std::uint32_t zeros[4] = {};
    store_shared(Aqk + 32 * lane, zeros);
    store_shared(Aqk + 32 * lane + 16, zeros);
    sync_warp();
    if (lane < 16) store_shared(Aqk + 4 * (17 * lane), load_shared_float(bench + Bench::diagonal + 4 * lane));
  }
  scatter_level<1, sweep>(tiles[0], betas, L, Aqk, lane);
  scatter_level<2, sweep>(tiles[1], betas, L, Aqk, lane);
  scatter_level<4, sweep>(tiles[2], betas, L, Aqk, lane);
  scatter_level<8, sweep>(tiles[3], betas, L, Aqk, lane);
  sync_warp();
  if constexpr (with_q) write_tile<pieces>(stage + Layout::Aqk, Aqk, lane);
  const float beta_j = load_shared_float(betas + 4 * (lane % 16));
  if constexpr (sweep != Sweep::forward)
    if (sweep == Sweep::stored || lane < 16) store_stage(stage + Layout::betas + 4 * lane, beta_j);
  solve<sweep == Sweep::stored>(L, sweep == Sweep::forward ? beta_j : 1.0f, lane);
  write_tile<pieces>(stage + Layout::T, L, lane);
  if constexpr (sweep == Sweep::stored) write_tile<pieces>(stage + Layout::T_states, L + 1024, lane);
}

/// Waits until this block may write round `round` of a stage: it has written the round before (a barrier tells only odd from
/// even rounds, and producers may be more than a round apart), and all consumers have given that back.
__device__ __forceinline__ void await_turn(const Ring& ring, int stage, int round) {
  word_wait(ring.rounds(stage), static_cast<std::uint32_t>(round));
  if (round > 0) barrier_wait(ring.empty(stage), (round - 1) & 1);
}

/// Waits until all consumers have given back what this block wrote in that round, or a later one.
__device__ __forceinline__ void await_consumed(const Ring& ring, int stage, int round) {
  while (load_shared_word(ring.rounds(stage)) == static_cast<std::uint32_t>(round + 1) && !barrier_test(ring.empty(stage), round & 1)) {
  }
}

/// Gives a stage prepared at `from` to the consumers of all blocks of the cluster: copied here by the warp if it was not
/// prepared in place, sent to rank r by lane r.
template <int bytes> __device__ __forceinline__ void send_stage(const Ring& ring, Address from, int stage, bool staged, unsigned lane) {
  const Address place = ring.stages + stage * bytes;
  if (lane < ring.sharing && lane != ring.rank) {
    const Address full = remote_address(ring.full(stage), lane);
    barrier_expect_remote(full, bytes);
    copy_remote(remote_address(place, lane), from, bytes, full);
  }
  if (staged) {
    for (int at = 16 * static_cast<int>(lane); at < bytes; at += 512) {
      std::uint32_t words[4];
      load_shared_quad(words, from + at);
      store_shared(place + at, words);
    }
  }
  sync_warp();
  if (lane == 0) barrier_arrive(ring.full(stage));
}

/// Every `step`-th chunk of a gang's from `first` on; those of a unit are counted from its end in the adjoint sweep. `staging`: room
/// for a stage, if args.staged.
template <int K, int pieces, bool half_precision, Sweep sweep, bool dealt, bool narrow = false>
__device__ void produce_all(const ForwardArguments& args, const Ring& ring, Address bench, Address staging, int gang, int first, int step,
                            unsigned lane) {
  using Bench = WorkbenchLayout<K, pieces>;
  constexpr int stage_bytes = StageLayout<K, pieces, sweep>::bytes;
  int turn = first; // of the gang's chunks, this warp's next one
  Stretch stretch;
#pragma unroll 1
  for (int number = 0; stretch_of<dealt>(args, gang, number, stretch); ++number) {
    const int head = stretch.unit % args.HV, head_q = head / (args.HV / args.H);
    const Span span = span_of(args, stretch.unit / args.HV);
    const HeadGate gate = gate_of(args, head);
    for (unsigned c = lane; c < K; c += 32)
      store_shared(bench + Bench::biases + 4 * c, args.dt_bias != nullptr && (!narrow || static_cast<int>(c) < args.K)
                                                      ? args.dt_bias[static_cast<std::int64_t>(head) * channels_of<K, narrow>(args) + c]
                                                      : 0.0f);
    const auto place_of = [&](int chunk) { return sweep == Sweep::adjoint ? stretch.chunks - 1 - chunk : chunk; };
    const int shifted = stretch.first - stretch.done; // from a turn to the unit's chunk
    if (turn + shifted < stretch.last)
      fetch_rows<K, pieces, sweep, narrow>(args, bench, span, place_of(turn + shifted), head, head_q, lane);
    for (; turn + shifted < stretch.last; turn += step) {
      const int chunk = turn + shifted;
      const std::int64_t start = static_cast<std::int64_t>(place_of(chunk)) * chunk_tokens, left = span.length - start;
      const int tokens = left < chunk_tokens ? static_cast<int>(left) : chunk_tokens;
      const bool has_token = static_cast<int>(lane) < tokens;
      const std::uint32_t beta_bits =
          has_token ? load_bits(args.beta.data, row_of(args.beta, span.batch, span.first + start + lane, head), args.beta_format) : 0;
      copy_async_wait<0>();
      sync_warp();
      normalise<K, pieces, half_precision, sweep>(args, bench, lane);
      if (lane < 16)
        store_shared(bench + Bench::norms + 128 + 4 * lane,
                     has_token ? step_size(args.beta_form, number_of(beta_bits, args.beta_format)) : 0.0f);
      sync_warp();
      const int stage = turn % ring.count, round = turn / ring.count;
      const auto await_stage = [&] {
        if (!args.staged)
          await_turn(ring, stage, round);
        else if (turn >= step)
          await_consumed(ring, (turn - step) % ring.count, (turn - step) / ring.count);
      };
      const auto begin_next = [&] {
        if (chunk + step < stretch.last)
          fetch_rows<K, pieces, sweep, narrow>(args, bench, span, place_of(chunk + step), head, head_q, lane);
      };
      const Address place = args.staged ? staging : ring.stages + stage * stage_bytes;
      produce<K, pieces, half_precision, sweep, narrow>(args, bench, place, gate, bench + Bench::biases, tokens, lane, begin_next,
                                                        await_stage);
      if (ring.sharing > 1) fence_async();
      sync_warp();
      if (args.staged) {
        await_turn(ring, stage, round);
        sync_warp();
      }
      send_stage<stage_bytes>(ring, place, stage, args.staged, lane);
      sync_warp();
      if (lane == 0) word_set(ring.rounds(stage), static_cast<std::uint32_t>(round + 1));
    }
    if constexpr (!dealt) break;
  }
}

/// A block: a gang's, or a slice of one unit's value columns. `produce_part` runs a producer warp, given the ring, its bench, the number
/// of its gang, and its number among the gang's producers; `consume_part` a consumer warp, given the ring, its area, the gang and its first
/// column. `staging_bytes`: of a producer, beside the ring.
template <bool dealt, class Produce, class Consume>
__device__ __forceinline__ void gang_block(const ForwardArguments& args, int stage_bytes, int bench_bytes, int staging_bytes,
                                           Produce produce_part, Consume consume_part) {
  const unsigned warp = thread_index() / 32, lane = thread_index() % 32;
  const int slice = static_cast<int>(block_index() % args.slices);
  const bool sharing = args.sharing > 1;
  const Address base = shared_base(), number = base + barrier_bytes;
  const Ring ring{base, base + header_bytes, args.stages, static_cast<unsigned>(args.sharing), sharing ? cluster_rank() : 0};
  const Address stagings = ring.stages + args.stages * stage_bytes;
  const Address benches = stagings + args.producer_warps * staging_bytes;
  const Address areas = benches + args.producer_warps * bench_bytes;
  if (thread_index() == 0) {
    for (int stage = 0; stage < args.stages; ++stage) {
      barrier_init(ring.full(stage), 1);
      barrier_init(ring.empty(stage), args.consumer_warps * args.sharing);
      store_shared(ring.rounds(stage), std::uint32_t{0});
    }
    if (dealt && ring.rank == 0) store_shared(number, take_ticket(args.handover));
  }
  sync_block();
  if (sharing) sync_cluster();
  const auto gang = static_cast<int>(!dealt    ? block_index() / static_cast<unsigned>(args.slices)
                                     : sharing ? load_remote_word(remote_address(number, 0))
                                               : load_shared_word(number));
  if (static_cast<int>(warp) < args.consumer_warps) {
    const int column = (slice * args.consumer_warps + static_cast<int>(warp)) * 16;
    consume_part(ring, areas + warp * consumer_bytes, gang, column, lane);
  } else {
    const int producer = static_cast<int>(warp) - args.consumer_warps;
    produce_part(ring, benches + producer * bench_bytes, stagings + producer * staging_bytes, gang,
                 static_cast<int>(ring.rank) + args.sharing * producer, lane);
  }
  if (sharing) {
    sync_warp();
    sync_cluster(); // others may still send to this block's memory
  }
}

/// `consume_part`: as for gang_block.
template <int K, int pieces, bool half_precision, Sweep sweep, bool dealt, bool narrow = false, class Consume>
__device__ __forceinline__ void sweep_block(const ForwardArguments& args, Consume consume_part) {
  constexpr int stage_bytes = StageLayout<K, pieces, sweep>::bytes;
  gang_block<dealt>(
      args, stage_bytes, WorkbenchLayout<K, pieces>::bytes(args.gate_format == Stored::fp32 ? 4 : 2), args.staged ? stage_bytes : 0,
      [&](const Ring& ring, Address bench, Address staging, int gang, int first, unsigned lane) {
        produce_all<K, pieces, half_precision, sweep, dealt, narrow>(args, ring, bench, staging, gang, first,
                                                                     args.sharing * args.producer_warps, lane);
      },
      consume_part);
}

template <int K, int pieces, bool half_precision, bool dealt, bool narrow = false>
__device__ __forceinline__ void chunk_forward_block(const ForwardArguments& args) {
  sweep_block<K, pieces, half_precision, Sweep::forward, dealt, narrow>(
      args, [&](const Ring& ring, Address area, int gang, int column, unsigned lane) {
        const auto advance_chunk = [](float(&S)[K / 8][4], float(&O)[2][4], Address stage, Address values, unsigned own_lane) {
          if constexpr (pieces == mixed_terms)
            advance_mixed<K, half_precision>(S, O, stage, values, own_lane);
          else
            advance<K, pieces, half_precision>(S, O, stage, values, own_lane);
        };
        consume<K, StageLayout<K, pieces>::bytes, half_precision, dealt, narrow>(args, ring, area, gang, column, lane, advance_chunk);
      });
}

} // namespace kdacheck::cuda
