#pragma once
// Last pass, first part: what a segment's products take. A warp works on 16 tokens and 64 channels, a lane on two
// neighbouring channels, as the producers of the chunk kernels do.

#include "../chunk/chunk_producer.cuh"
#include "backward_layout.cuh"

namespace kdacheck::cuda {

/// Which gates a kernel has code for: code for one alone is short, and a kernel that fits the instruction cache is faster.
enum class GateCode { given, bounded, any }; // given: logarithms of decays, or none

/// The code that a call needs. That for the bounded gate alone takes decays below 2^-126 for 0: from e^-80 on there are none.
constexpr __host__ __device__ GateCode code_for(const ForwardArguments& args) {
  if (args.gate == Gate::log_decay || args.gate == Gate::absent) return GateCode::given;
  return args.gate == Gate::bounded && args.lower_bound >= -80 ? GateCode::bounded : GateCode::any;
}

/// Decay of one channel from what is stored.
template <GateCode code> __device__ __forceinline__ float decay_of(const ForwardArguments& args, HeadGate head, float x, float bias) {
  if constexpr (code == GateCode::bounded)
    return exp2_approximate(log2_decay_bounded(x, bias, head.growth_log2, args.lower_bound * log2_e));
  if constexpr (code == GateCode::given) return exp2_gradual(x * log2_e);
  return exp2_gradual(log2_decay(args, head, x, bias));
}

/// Every lane has 32 numbers; lane l gets the sum over the lanes of number l. The order of the sum is fixed. (A loop over `span`
/// would not be unrolled, and the numbers would lie in memory.)
template <int span = 16> __device__ __forceinline__ float sum_lanes(float (&x)[32], unsigned lane) {
  const bool upper = (lane & span) != 0;
#pragma unroll
  for (int i = 0; i < span; ++i) {
    const float low = x[i], high = x[i + span];
    x[i] = (upper ? high : low) + shuffle_xor(upper ? low : high, span);
  }
  if constexpr (span > 1) return sum_lanes<span / 2>(x, lane);
  return x[0];
}

/// Two neighbouring channels of the stored gate of some rows; zero from row `tokens` on.
template <int count>
__device__ __forceinline__ void load_gate_rows(Pair (&g)[count], const ForwardArguments& args, std::int64_t offset, int tokens) {
  if (args.gate_format == Stored::fp32) {
    const float* from = static_cast<const float*>(args.g.data) + offset;
#pragma unroll
    for (int i = 0; i < count; ++i, from += args.g.token) g[i] = i < tokens ? Pair{from[0], from[1]} : Pair{0, 0};
    return;
  }
  std::uint32_t words[count];
  const std::uint16_t* from = static_cast<const std::uint16_t*>(args.g.data) + offset;
#pragma unroll
  for (int i = 0; i < count; ++i, from += args.g.token)
    words[i] = i < tokens ? *reinterpret_cast<const std::uint32_t*>(from) : std::uint32_t{0};
  if (args.gate_format == Stored::bf16) {
#pragma unroll
    for (int i = 0; i < count; ++i) g[i] = unpack_bf16(words[i]);
  } else {
#pragma unroll
    for (int i = 0; i < count; ++i) g[i] = unpack_fp16(words[i]);
  }
}

/// Starts copying the segment's rows of 16-bit keys to where their operands will lie; absent rows and channels become zero.
template <int K, bool narrow = false>
__device__ __forceinline__ void copy_keys(Address to, const View& view, std::int64_t offset, int tokens, const ForwardArguments& args) {
  constexpr int pieces_of_row = K / 8, rows_at_once = 2 * K / pieces_of_row;
  static_assert(rows_at_once % 8 == 0, "all rows of a thread are exchanged alike");
  const int row = static_cast<int>(thread_index()) / pieces_of_row, channel = 8 * (static_cast<int>(thread_index()) % pieces_of_row);
  const auto* source = static_cast<const std::uint16_t*>(view.data) + offset + channel + row * view.token;
  const Address place = to + swizzled(row, channel, 2 * K);
  if (narrow && channel >= args.K) tokens = 0;
#pragma unroll
  for (int step = 0; step < segment_tokens / rows_at_once; ++step, source += rows_at_once * view.token)
    copy_async(place + step * rows_at_once * 2 * K, source, row + step * rows_at_once < tokens ? 16 : 0);
}

/// Starts copying the segment's rows of a workspace tensor [pieces][B T][HV][V] to shared memory; absent rows become zero.
template <int pieces, int threads>
__device__ __forceinline__ void copy_values(Address to, int row_bytes, int piece_bytes, const std::uint16_t* from, std::int64_t row,
                                            std::int64_t plane, int tokens, int V) {
  constexpr int rows_at_once = threads / 16;
  const int first = static_cast<int>(thread_index()) / 16;
#pragma unroll 1
  for (int column = 8 * (static_cast<int>(thread_index()) % 16); column < V; column += 128) {
    const std::uint16_t* source = from + first * row + column;
    Address place = to + first * row_bytes + 2 * column;
#pragma unroll 4
    for (int token = first; token < segment_tokens; token += rows_at_once) {
#pragma unroll
      for (int piece = 0; piece < pieces; ++piece) copy_async(place + piece * piece_bytes, source + piece * plane, token < tokens ? 16 : 0);
      source += rows_at_once * row;
      place += rows_at_once * row_bytes;
    }
  }
}

/// The same for dO, in bf16 terms.
template <int pieces, bool half_precision, int threads>
__device__ __forceinline__ void copy_cotangent(Address to, int row_bytes, int piece_bytes, const View& d_o, std::int64_t offset, int tokens,
                                               int V) {
  constexpr int rows_at_once = threads / 16;
  if (d_o.data == nullptr) tokens = 0;
  const int first = static_cast<int>(thread_index()) / 16;
#pragma unroll 1
  for (int column = 8 * (static_cast<int>(thread_index()) % 16); column < V; column += 128) {
    const auto* source = static_cast<const std::uint16_t*>(d_o.data) + offset + first * d_o.token + column;
    Address place = to + first * row_bytes + 2 * column;
#pragma unroll 4
    for (int token = first; token < segment_tokens; token += rows_at_once) {
      if (token >= tokens) {
        const std::uint32_t zeros[4] = {};
#pragma unroll
        for (int piece = 0; piece < (half_precision ? pieces : 1); ++piece) store_shared(place + piece * piece_bytes, zeros);
      } else if constexpr (half_precision) {
        std::uint32_t words[4], terms[pieces][4];
        load_global(words, source);
#pragma unroll
        for (int m = 0; m < 4; ++m) {
          const Pair x = unpack_fp16(words[m]);
          const Terms<pieces> split_words = split<pieces>(x.x, x.y);
#pragma unroll
          for (int piece = 0; piece < pieces; ++piece) terms[piece][m] = split_words.word[piece];
        }
#pragma unroll
        for (int piece = 0; piece < pieces; ++piece) store_shared(place + piece * piece_bytes, terms[piece]);
      } else {
        copy_async(place, source, 16);
      }
      source += rows_at_once * d_o.token;
      place += rows_at_once * row_bytes;
    }
  }
}

/// Starts copying q, k and a gate of 16 bits to where qd, kd and kr will lie: a lane replaces the very words it has read.
template <int K, int pieces, bool half_precision, bool narrow = false>
__device__ __forceinline__ void copy_segment_keys(const ForwardArguments& args, Address base, const Segment& segment, int head,
                                                  int head_q) {
  using Layout = GradientLayout<K, pieces, half_precision>;
  const std::int64_t batch = segment.span.batch, first = segment.first();
  copy_keys<K, narrow>(base + Layout::qd, args.q, row_of(args.q, batch, first, head_q), segment.tokens, args);
  copy_keys<K, narrow>(base + Layout::kd, args.k, row_of(args.k, batch, first, head_q), segment.tokens, args);
  if (args.gate != Gate::absent && args.gate_format != Stored::fp32)
    copy_keys<K, narrow>(base + Layout::kr, args.g, row_of(args.g, batch, first, head), segment.tokens, args);
}

/// Writes kd, qd, kr, the decays of sub-blocks, betas, and the factors that normalise q (without scale) and k.
/// Takes what copy_segment_keys brought.
template <GateCode code, bool narrow = false, int K, int pieces, bool half_precision>
__device__ __forceinline__ void prepare_keys(const ForwardArguments& args, Address base,
                                             const GradientLayout<K, pieces, half_precision>& at, const Segment& segment, int head) {
  using Layout = GradientLayout<K, pieces, half_precision>;
  const unsigned warp = thread_index() / 32, lane = thread_index() % 32;
  const int block = static_cast<int>(warp) % sub_blocks, part = static_cast<int>(warp) / sub_blocks;
  const int channel = 64 * part + 2 * static_cast<int>(lane), tokens = segment.tokens - chunk_tokens * block;
  Address places[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) places[i] = base + swizzled(chunk_tokens * block + i, channel, 2 * K);
  const auto place_of = [&](int tensor, int i) { return places[i % 8] + tensor + i / 8 * (8 * 2 * K); };
  std::uint32_t k_words[16];
#pragma unroll
  for (int i = 0; i < 16; ++i) k_words[i] = load_shared_word(place_of(Layout::kd, i));
  if (args.l2norm) {
    float squares[32];
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      const Pair q = unpack<half_precision>(load_shared_word(place_of(Layout::qd, i))), k = unpack<half_precision>(k_words[i]);
      squares[i] = q.x * q.x + q.y * q.y;
      squares[16 + i] = k.x * k.x + k.y * k.y;
    }
    const float sum = sum_lanes(squares, lane);
    store_shared(base + at.sums +
                     4 * ((2 * part + static_cast<int>(lane) / 16) * segment_tokens + chunk_tokens * block + static_cast<int>(lane) % 16),
                 sum);
  }
  Pair alpha[16];
  if (args.gate == Gate::absent || (narrow && channel >= args.K)) {
#pragma unroll
    for (int i = 0; i < 16; ++i) alpha[i] = {1, 1};
  } else {
    if (args.gate_format == Stored::fp32) {
      load_gate_rows(alpha, args, row_of(args.g, segment.span.batch, segment.first() + chunk_tokens * block, head) + channel, tokens);
    } else if (args.gate_format == Stored::bf16) {
#pragma unroll
      for (int i = 0; i < 16; ++i) alpha[i] = unpack_bf16(load_shared_word(place_of(Layout::kr, i)));
    } else {
#pragma unroll
      for (int i = 0; i < 16; ++i) alpha[i] = unpack_fp16(load_shared_word(place_of(Layout::kr, i)));
    }
    Pair bias{0, 0};
    if (args.dt_bias != nullptr) {
      const float* biases = args.dt_bias + static_cast<std::int64_t>(head) * channels_of<K, narrow>(args) + channel;
      bias = {biases[0], biases[1]};
    }
    const HeadGate gate = gate_of(args, head);
#pragma unroll
    for (int i = 0; i < 16; ++i)
      alpha[i] = {decay_of<code>(args, gate, alpha[i].x, bias.x), decay_of<code>(args, gate, alpha[i].y, bias.y)};
    if (tokens < chunk_tokens)
#pragma unroll
      for (int i = 0; i < 16; ++i)
        if (i >= tokens) alpha[i] = {1, 1};
  }
  if (thread_index() < segment_tokens) {
    const int token = static_cast<int>(thread_index());
    const float beta =
        token < segment.tokens
            ? step_size(args.beta_form,
                        load_number(args.beta.data, row_of(args.beta, segment.span.batch, segment.first() + token, head), args.beta_format))
            : 0.0f;
    store_shared(base + at.betas + 4 * token, beta);
  }
  sync_block();
  if (thread_index() < 2 * segment_tokens) { // a block has at least as many threads
    const unsigned index = thread_index();
    float factor = 1;
    if (args.l2norm) {
      float sum = load_shared_float(base + at.sums + 4 * index);
#pragma unroll
      for (int other = 1; other < K / 64; ++other) sum += load_shared_float(base + at.sums + 4 * (2 * other * segment_tokens + index));
      factor = reciprocal_root(sum + 1e-6f);
    }
    store_shared(base + at.norms + 4 * index, factor);
  }
  sync_block();
  const auto put = [&](int tensor, int i, Pair value) {
    const Terms<pieces> terms = split<pieces>(value.x, value.y);
#pragma unroll
    for (int piece = 0; piece < pieces; ++piece) store_shared(place_of(tensor + piece * Layout::key_piece, i), terms.word[piece]);
  };
  Pair factor{1, 1};
#pragma unroll
  for (int quad = 0; quad < 4; ++quad) {
    float norm_q[4], norm_k[4];
    load_shared_quad(norm_q, base + at.norms + 4 * (chunk_tokens * block + 4 * quad));
    load_shared_quad(norm_k, base + at.norms + 4 * (segment_tokens + chunk_tokens * block + 4 * quad));
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int i = 4 * quad + e;
      const float norm = args.scale * norm_q[e];
      factor = factor * alpha[i];
      const Pair q = unpack<half_precision>(load_shared_word(place_of(Layout::qd, i)));
      put(Layout::kd, i, unpack<half_precision>(k_words[i]) * Pair{norm_k[e], norm_k[e]} * factor);
      put(Layout::qd, i, q * Pair{norm, norm} * factor);
    }
  }
  store_shared(base + at.gammas + 4 * (block * K + channel), factor);
  factor = {1, 1};
#pragma unroll
  for (int quad = 3; quad >= 0; --quad) {
    float norm_k[4];
    load_shared_quad(norm_k, base + at.norms + 4 * (segment_tokens + chunk_tokens * block + 4 * quad));
#pragma unroll
    for (int e = 3; e >= 0; --e) {
      const int i = 4 * quad + e;
      put(Layout::kr, i, unpack<half_precision>(k_words[i]) * Pair{norm_k[e], norm_k[e]} * factor);
      factor = factor * alpha[i];
    }
  }
}

} // namespace kdacheck::cuda
