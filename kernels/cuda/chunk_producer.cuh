#pragma once
// The parallel half of the chunk kernel: one warp turns 16 tokens of q, k, g, beta into a stage. Nothing here waits for
// the state, so that warps work on different chunks at a time.
//
// A lane owns a pair of neighbouring channels (64 channels a pass) of all 16 tokens: running sums and products over tokens
// stay in its registers; only the norms need other lanes.

#include "chunk_consumer.cuh"
#include "chunk_scores.cuh"
#include "gate.cuh"

namespace kdacheck::cuda {

/// Constants of a head.
struct HeadGate {
  float growth = 1, growth_log2 = log2_e;
};

/// This lane's part of copying 16 rows of `row_bytes` each: a fixed 16-byte segment of every (32 / segments)-th row.
template <int row_bytes> struct RowCopy {
  static constexpr int segments = row_bytes / 16, rows_at_once = 32 / segments, steps = chunk_tokens / rows_at_once;
  const unsigned char* from; ///< this lane's segment of its first row of the sequence
  std::int64_t stride;       ///< bytes between rows

  /// `rows`: those of the chunk that belong to the sequence; the others become zero.
  __device__ __forceinline__ void start(Address to, std::int64_t first_row, int rows, unsigned lane) const {
    const int row = static_cast<int>(lane) / segments;
    const unsigned char* source = from + first_row * stride;
    const Address place = to + row * row_bytes + 16 * (lane % segments);
#pragma unroll
    for (int step = 0; step < steps; ++step) {
      const bool inside = row + step * rows_at_once < rows;
      copy_async(place + step * rows_at_once * row_bytes, inside ? source + step * rows_at_once * stride : from, inside ? 16 : 0);
    }
  }
};

template <int row_bytes>
__device__ __forceinline__ RowCopy<row_bytes> copy_of(const View& view, Span span, int head, int element_bytes, unsigned lane) {
  using Copy = RowCopy<row_bytes>;
  // A sequence without tokens copies nothing, and its first row may lie outside the tensor: only its address is taken.
  const std::int64_t offset = row_of(view, span.batch, span.first, head);
  const std::int64_t row = lane / Copy::segments;
  return {static_cast<const unsigned char*>(view.data) + (offset + row * view.token) * element_bytes + 16 * (lane % Copy::segments),
          view.token * element_bytes};
}

/// Copies of one producer's inputs.
template <int K, int pieces> struct ChunkFetch {
  using Bench = WorkbenchLayout<K, pieces>;
  RowCopy<2 * K> q, k, g_half{};
  RowCopy<4 * K> g_single{};

  __device__ __forceinline__ ChunkFetch(const ForwardArguments& args, Span span, int head, unsigned lane) {
    const int head_q = head / (args.HV / args.H);
    q = copy_of<2 * K>(args.q, span, head_q, 2, lane);
    k = copy_of<2 * K>(args.k, span, head_q, 2, lane);
    if (args.gate_format == Stored::fp32)
      g_single = copy_of<4 * K>(args.g, span, head, 4, lane);
    else
      g_half = copy_of<2 * K>(args.g, span, head, 2, lane);
  }

  /// Starts copying q, k, g of a chunk; returns this lane's raw beta (token lane % 16).
  __device__ __forceinline__ float start(const ForwardArguments& args, Address bench, Span span, int chunk, int head, unsigned lane) const {
    const std::int64_t first = static_cast<std::int64_t>(chunk) * chunk_tokens;
    const std::int64_t left = span.length - first;
    const int rows = left < chunk_tokens ? static_cast<int>(left) : chunk_tokens;
    q.start(bench + Bench::raw_q, first, rows, lane);
    k.start(bench + Bench::raw_k, first, rows, lane);
    if (args.gate != Gate::absent) {
      if (args.gate_format == Stored::fp32)
        g_single.start(bench + Bench::raw_g, first, rows, lane);
      else
        g_half.start(bench + Bench::raw_g, first, rows, lane);
    }
    copy_async_commit();
    const int token = static_cast<int>(lane % 16);
    if (token >= rows) return 0;
    return load_number(args.beta.data, row_of(args.beta, span.batch, span.first + first + token, head), args.beta_format);
  }
};

/// Sums 2 width numbers over the warp: lane l ends with the sum of number l % (2 width), for which the lanes that differ in
/// higher bits hold parts (none for width = 16).
template <int width> __device__ __forceinline__ float sum_each(float (&x)[32], unsigned lane) {
  const bool upper = (lane & width) != 0;
#pragma unroll
  for (int i = 0; i < width; ++i) {
    const float sent = upper ? x[i] : x[i + width], kept = upper ? x[i + width] : x[i];
    x[i] = kept + shuffle_xor(sent, width);
  }
  if constexpr (width > 1)
    return sum_each<width / 2>(x, lane);
  else
    return x[0];
}

template <bool half_precision> __device__ __forceinline__ Pair unpack(std::uint32_t word) {
  return half_precision ? unpack_fp16(word) : unpack_bf16(word);
}

/// Norms of the rows and the diagonal of Aqk: writes 16 factors for q (scale included) and 16 for k to the bench, and
/// Aqk_ii to its matrix.
template <int K, int pieces, bool half_precision>
__device__ __forceinline__ void normalise(const ForwardArguments& args, Address bench, unsigned lane) {
  using Bench = WorkbenchLayout<K, pieces>;
  float squares[32] = {}, products[32] = {};
#pragma unroll
  for (int pass = 0; pass < K / 64; ++pass)
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      const unsigned offset = i * Bench::raw_row + pass * 128 + 4 * lane;
      const Pair q = unpack<half_precision>(load_shared_word(bench + Bench::raw_q + offset));
      const Pair k = unpack<half_precision>(load_shared_word(bench + Bench::raw_k + offset));
      squares[i] += q.x * q.x + q.y * q.y;
      squares[16 + i] += k.x * k.x + k.y * k.y;
      products[i] += q.x * k.x + q.y * k.y;
    }
  const float square = sum_each<16>(squares, lane);
  float product = sum_each<8>(products, lane);
  product += shuffle_xor(product, 16);
  const float root = args.l2norm ? reciprocal_root(square + 1e-6f) : 1.0f;
  const float factor = lane < 16 ? root * args.scale : root;
  const float partner = shuffle_xor(factor, 16);
  store_shared(bench + Bench::norms + 4 * lane, factor);
  if (lane < 16) store_shared(bench + Bench::Aqk + 4 * (17 * lane), product * factor * partner);
}

/// Log2 decays of this lane's channels; zero past the end of the sequence.
template <int K, int pieces, bool half_precision>
__device__ __forceinline__ void read_gate(Pair (&g)[16], const ForwardArguments& args, Address bench, HeadGate head, Pair bias, int pass,
                                          int tokens, unsigned lane) {
  using Bench = WorkbenchLayout<K, pieces>;
  const unsigned channel = 64 * pass + 2 * lane;
  if (args.gate == Gate::absent) {
#pragma unroll
    for (int i = 0; i < 16; ++i) g[i] = {0, 0};
    return;
  }
  if (args.gate_format == Stored::fp32) {
#pragma unroll
    for (int i = 0; i < 16; ++i) g[i] = load_shared_pair(bench + Bench::raw_g + 4 * (i * K + channel));
  } else {
    const bool bf16 = args.gate_format == Stored::bf16;
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      const std::uint32_t word = load_shared_word(bench + Bench::raw_g + 2 * (i * K + channel));
      g[i] = bf16 ? unpack_bf16(word) : unpack_fp16(word);
    }
  }
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
#pragma unroll
  for (int i = 0; i < 16; ++i)
    if (i >= tokens) g[i] = {0, 0};
}

/// Turns what lies on the bench into a stage. `begin_next` is called once the raw rows are no longer needed, `await_stage`
/// before the stage is written: as late as can be, so that fewer stages than producers do not make them wait.
template <int K, int pieces, bool half_precision, class BeginNext, class AwaitStage>
__device__ __forceinline__ void produce(const ForwardArguments& args, Address bench, Address stage, HeadGate head,
                                        const Pair (&bias)[K / 64], float beta, int tokens, unsigned lane, BeginNext begin_next,
                                        AwaitStage await_stage) {
  using Bench = WorkbenchLayout<K, pieces>;
  using Layout = StageLayout<K, pieces>;
  float tiles[4][4] = {};
#pragma unroll 1
  for (int pass = 0; pass < K / 64; ++pass) {
    const unsigned channel = 64 * pass + 2 * lane;
    Pair alpha[16], q[16], k[16], decay{0, 0};
    read_gate<K, pieces, half_precision>(alpha, args, bench, head, pass == 0 ? bias[0] : bias[K / 64 - 1], pass, tokens, lane);
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      decay = {decay.x + alpha[i].x, decay.y + alpha[i].y};
      alpha[i] = {exp2_approximate(alpha[i].x), exp2_approximate(alpha[i].y)};
    }
#pragma unroll
    for (int quad = 0; quad < 4; ++quad) {
      float norm_q[4], norm_k[4];
      load_shared_quad(norm_q, bench + Bench::norms + 16 * quad);
      load_shared_quad(norm_k, bench + Bench::norms + 64 + 16 * quad);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int i = 4 * quad + e;
        const unsigned offset = i * Bench::raw_row + 2 * channel;
        q[i] = unpack<half_precision>(load_shared_word(bench + Bench::raw_q + offset)) * Pair{norm_q[e], norm_q[e]};
        k[i] = unpack<half_precision>(load_shared_word(bench + Bench::raw_k + offset)) * Pair{norm_k[e], norm_k[e]};
      }
    }
    if (pass == K / 64 - 1) {
      sync_warp();
      begin_next();
    }
    const Address rows = bench + Bench::score_rows;
    const auto level = [&]<int span>(float(&tile)[4]) {
      write_level<span, pieces>(rows, k, q, alpha, lane);
      sync_warp();
      multiply_level<pieces>(tile, rows, lane);
      sync_warp();
    };
    level.template operator()<1>(tiles[0]);
    level.template operator()<2>(tiles[1]);
    level.template operator()<4>(tiles[2]);
    level.template operator()<8>(tiles[3]);
    if (pass == 0) await_stage();
    store_shared(stage + Layout::decay + 4 * channel, exp2_approximate(decay.x));
    store_shared(stage + Layout::decay + 4 * channel + 4, exp2_approximate(decay.y));
    const auto put = [&](int place, int row, Pair value) {
      const Terms<pieces> terms = split<pieces>(value.x, value.y);
#pragma unroll
      for (int piece = 0; piece < pieces; ++piece)
        store_shared(stage + place + piece * Layout::piece + swizzled(row, channel, 2 * K), terms.word[piece]);
    };
    Pair factor{1, 1};
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      factor = factor * alpha[i];
      put(Layout::kd, i, k[i] * factor);
      put(Layout::qd, i, q[i] * factor);
    }
    factor = {1, 1};
#pragma unroll
    for (int i = 15; i >= 0; --i) {
      put(Layout::kr, i, k[i] * factor);
      factor = factor * alpha[i];
    }
  }
  const Address L = bench + Bench::L, Aqk = bench + Bench::Aqk;
  scatter_level<1>(tiles[0], beta, L, Aqk, lane);
  scatter_level<2>(tiles[1], beta, L, Aqk, lane);
  scatter_level<4>(tiles[2], beta, L, Aqk, lane);
  scatter_level<8>(tiles[3], beta, L, Aqk, lane);
  sync_warp();
  write_tile<pieces>(stage + Layout::Aqk, Aqk, lane);
  solve(L, beta, lane);
  write_tile<pieces>(stage + Layout::T, L, lane);
}

/// Chunks first, first + step, ... of a sequence.
template <int K, int pieces, bool half_precision>
__device__ void produce_all(const ForwardArguments& args, const Ring& ring, Address bench, Span span, int head, int first, int step,
                            unsigned lane) {
  using Bench = WorkbenchLayout<K, pieces>;
  const int chunks = static_cast<int>((span.length + chunk_tokens - 1) / chunk_tokens);
  HeadGate gate;
  if (args.A_log != nullptr) {
    gate.growth = expf(args.A_log[head]);
    gate.growth_log2 = gate.growth * log2_e;
  }
  Pair bias[K / 64];
#pragma unroll
  for (int pass = 0; pass < K / 64; ++pass) {
    const std::int64_t offset = static_cast<std::int64_t>(head) * K + 64 * pass + 2 * lane;
    bias[pass] = args.dt_bias != nullptr ? Pair{args.dt_bias[offset], args.dt_bias[offset + 1]} : Pair{0, 0};
  }
  // The upper triangle of Aqk stays zero from here on.
  for (int i = lane; i < 256; i += 32) store_shared(bench + Bench::Aqk + 4 * i, 0.0f);
  const ChunkFetch<K, pieces> fetch(args, span, head, lane);
  float raw_beta = first < chunks ? fetch.start(args, bench, span, first, head, lane) : 0.0f;
  for (int chunk = first; chunk < chunks; chunk += step) {
    const std::int64_t left = span.length - static_cast<std::int64_t>(chunk) * chunk_tokens;
    const int tokens = left < chunk_tokens ? static_cast<int>(left) : chunk_tokens;
    const float beta = static_cast<int>(lane % 16) < tokens ? step_size(args.beta_form, raw_beta) : 0.0f;
    copy_async_wait<0>();
    sync_warp();
    normalise<K, pieces, half_precision>(args, bench, lane);
    sync_warp();
    const int stage = chunk % ring.count, round = chunk / ring.count;
    const auto await_stage = [&] {
      if (round > 0) barrier_wait(ring.empty(stage), (round - 1) & 1);
    };
    const auto begin_next = [&] {
      if (chunk + step < chunks) raw_beta = fetch.start(args, bench, span, chunk + step, head, lane);
    };
    produce<K, pieces, half_precision>(args, bench, ring.stages + stage * StageLayout<K, pieces>::bytes, gate, bias, beta, tokens, lane,
                                       begin_next, await_stage);
    sync_warp();
    if (lane == 0) barrier_arrive(ring.full(stage));
  }
}

/// A block: one sequence and value head, one slice of the value columns.
template <int K, int pieces, bool half_precision> __device__ __forceinline__ void chunk_forward_block(const ForwardArguments& args) {
  const unsigned warp = thread_index() / 32, lane = thread_index() % 32;
  const int slice = static_cast<int>(block_index() % args.slices);
  const int head = static_cast<int>(block_index() / args.slices % args.HV);
  const std::int64_t n = block_index() / args.slices / args.HV;
  const int gate_bytes = args.gate_format == Stored::fp32 ? 4 : 2;
  const Address base = shared_base();
  const Ring ring{base, base + barrier_bytes, args.stages};
  const Address benches = ring.stages + args.stages * StageLayout<K, pieces>::bytes;
  const Address areas = benches + args.producer_warps * WorkbenchLayout<K, pieces>::bytes(gate_bytes);
  if (thread_index() == 0)
    for (int stage = 0; stage < args.stages; ++stage) {
      barrier_init(ring.full(stage), 1);
      barrier_init(ring.empty(stage), args.consumer_warps);
    }
  sync_block();
  const Span span = span_of(args, n);
  if (static_cast<int>(warp) < args.consumer_warps) {
    const int column = (slice * args.consumer_warps + static_cast<int>(warp)) * 16;
    consume<K, pieces, half_precision>(args, ring, areas + warp * consumer_bytes, span, n, head, column, lane);
  } else {
    const int producer = static_cast<int>(warp) - args.consumer_warps;
    produce_all<K, pieces, half_precision>(args, ring, benches + producer * WorkbenchLayout<K, pieces>::bytes(gate_bytes), span, head,
                                           producer, args.producer_warps, lane);
  }
}

} // namespace kdacheck::cuda
