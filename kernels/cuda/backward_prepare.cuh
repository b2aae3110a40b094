#pragma once
// Last pass, first part: what a segment's products take. A warp works on 16 tokens and 64 channels, a lane on two
// neighbouring channels, as the producers of the chunk kernels do.

#include "backward_layout.cuh"
#include "chunk_producer.cuh"

namespace kdacheck::cuda {

/// Decay of one channel from what is stored. `general`: the forms that need logarithms too; their code is long, and a kernel
/// without it is faster.
template <bool general> __device__ __forceinline__ float decay_of(const ForwardArguments& args, HeadGate head, float x, float bias) {
  if constexpr (general)
    if (args.gate == Gate::softplus || args.gate == Gate::sigmoid)
      return exp2_approximate(log_decay(args.gate, x, bias, head.growth, 0) * log2_e);
  if (args.gate == Gate::bounded) return exp2_approximate(log2_decay_bounded(x, bias, head.growth_log2, args.lower_bound * log2_e));
  return exp2_approximate(x * log2_e);
}

/// Every lane has 32 numbers; lane l gets the sum over the lanes of number l. The order of the sum is fixed.
__device__ __forceinline__ float sum_lanes(float (&x)[32], unsigned lane) {
#pragma unroll
  for (int span = 16; span > 0; span /= 2) {
    const bool upper = (lane & span) != 0;
#pragma unroll
    for (int i = 0; i < span; ++i) {
      const float sent = upper ? x[i] : x[i + span], kept = upper ? x[i + span] : x[i];
      x[i] = kept + shuffle_xor(sent, span);
    }
  }
  return x[0];
}

/// Two neighbouring 16-bit numbers of 16 rows; zero from row `tokens` on.
__device__ __forceinline__ void load_rows(std::uint32_t (&words)[16], const void* data, std::int64_t offset, std::int64_t stride,
                                          int tokens) {
#pragma unroll
  for (int i = 0; i < 16; ++i)
    words[i] = i < tokens ? *reinterpret_cast<const std::uint32_t*>(static_cast<const std::uint16_t*>(data) + offset + i * stride)
                          : std::uint32_t{0};
}

/// Two neighbouring channels of the stored gate of 16 rows.
__device__ __forceinline__ void load_gate_rows(Pair (&g)[16], const ForwardArguments& args, std::int64_t offset, int tokens) {
  if (args.gate_format == Stored::fp32) {
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      const float* from = static_cast<const float*>(args.g.data) + offset + i * args.g.token;
      g[i] = i < tokens ? Pair{from[0], from[1]} : Pair{0, 0};
    }
  } else {
    std::uint32_t words[16];
    load_rows(words, args.g.data, offset, args.g.token, tokens);
    const bool bf16 = args.gate_format == Stored::bf16;
#pragma unroll
    for (int i = 0; i < 16; ++i) g[i] = bf16 ? unpack_bf16(words[i]) : unpack_fp16(words[i]);
  }
}

/// Starts copying the segment's rows of a workspace tensor [pieces][B T][HV][V] to shared memory; absent rows become zero.
template <int pieces>
__device__ __forceinline__ void copy_values(Address to, int row_bytes, int piece_bytes, const std::uint16_t* from, std::int64_t row,
                                            std::int64_t plane, int tokens, int V, unsigned threads) {
  const int segments = V / 8;
  for (int at = static_cast<int>(thread_index()); at < segment_tokens * segments; at += static_cast<int>(threads)) {
    const int token = at / segments, segment = at % segments;
#pragma unroll
    for (int piece = 0; piece < pieces; ++piece)
      copy_async(to + piece * piece_bytes + token * row_bytes + 16 * segment,
                 from + piece * plane + (token < tokens ? token * row + 8 * segment : 0), token < tokens ? 16 : 0);
  }
}

/// The same for dO, in bf16 terms.
template <int pieces, bool half_precision>
__device__ __forceinline__ void copy_cotangent(Address to, int row_bytes, int piece_bytes, const View& d_o, std::int64_t offset, int tokens,
                                               int V, unsigned threads) {
  const int segments = V / 8;
  if (d_o.data == nullptr) tokens = 0;
  for (int at = static_cast<int>(thread_index()); at < segment_tokens * segments; at += static_cast<int>(threads)) {
    const int token = at / segments, segment = at % segments;
    const Address place = to + token * row_bytes + 16 * segment;
    if (token >= tokens) {
      const std::uint32_t zeros[4] = {};
#pragma unroll
      for (int piece = 0; piece < (half_precision ? pieces : 1); ++piece) store_shared(place + piece * piece_bytes, zeros);
      continue;
    }
    const auto* from = static_cast<const std::uint16_t*>(d_o.data) + offset + token * d_o.token + 8 * segment;
    if constexpr (half_precision) {
      std::uint32_t words[4], terms[pieces][4];
      load_global(words, from);
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
      copy_async(place, from, 16);
    }
  }
}

/// Writes kd, qd, kr, the decays of sub-blocks, betas, and the factors that normalise q (without scale) and k.
template <bool general, int K, int pieces, bool half_precision>
__device__ __forceinline__ void prepare_keys(const ForwardArguments& args, Address base,
                                             const GradientLayout<K, pieces, half_precision>& at, const Segment& segment, int head,
                                             int head_q) {
  using Layout = GradientLayout<K, pieces, half_precision>;
  const unsigned warp = thread_index() / 32, lane = thread_index() % 32;
  const int block = static_cast<int>(warp) % sub_blocks, part = static_cast<int>(warp) / sub_blocks;
  const int channel = 64 * part + 2 * static_cast<int>(lane);
  const std::int64_t row = segment.first() + chunk_tokens * block;
  const int tokens = segment.tokens - chunk_tokens * block;
  std::uint32_t q_words[16], k_words[16];
  load_rows(q_words, args.q.data, row_of(args.q, segment.span.batch, row, head_q) + channel, args.q.token, tokens);
  load_rows(k_words, args.k.data, row_of(args.k, segment.span.batch, row, head_q) + channel, args.k.token, tokens);
  Pair alpha[16];
  if (args.gate != Gate::absent) {
    load_gate_rows(alpha, args, row_of(args.g, segment.span.batch, row, head) + channel, tokens);
    Pair bias{0, 0};
    if (args.dt_bias != nullptr) {
      const float* biases = args.dt_bias + static_cast<std::int64_t>(head) * K + channel;
      bias = {biases[0], biases[1]};
    }
    const HeadGate gate = gate_of(args, head);
#pragma unroll
    for (int i = 0; i < 16; ++i)
      alpha[i] = {decay_of<general>(args, gate, alpha[i].x, bias.x), decay_of<general>(args, gate, alpha[i].y, bias.y)};
  }
#pragma unroll
  for (int i = 0; i < 16; ++i)
    if (args.gate == Gate::absent || i >= tokens) alpha[i] = {1, 1};
  if (thread_index() < segment_tokens) {
    const int token = static_cast<int>(thread_index());
    const float beta =
        token < segment.tokens
            ? step_size(args.beta_form,
                        load_number(args.beta.data, row_of(args.beta, segment.span.batch, segment.first() + token, head), args.beta_format))
            : 0.0f;
    store_shared(base + at.betas + 4 * token, beta);
  }
  if (args.l2norm) {
    float squares[32];
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      const Pair q = unpack<half_precision>(q_words[i]), k = unpack<half_precision>(k_words[i]);
      squares[i] = q.x * q.x + q.y * q.y;
      squares[16 + i] = k.x * k.x + k.y * k.y;
    }
    const float sum = sum_lanes(squares, lane);
    store_shared(base + at.sums +
                     4 * ((2 * part + static_cast<int>(lane) / 16) * segment_tokens + chunk_tokens * block + static_cast<int>(lane) % 16),
                 sum);
  }
  sync_block();
  for (int index = static_cast<int>(thread_index()); index < 2 * segment_tokens; index += 2 * K) {
    float factor = 1;
    if (args.l2norm) {
      float sum = load_shared_float(base + at.sums + 4 * index);
      if constexpr (K == 128) sum += load_shared_float(base + at.sums + 4 * (2 * segment_tokens + index));
      factor = reciprocal_root(sum + 1e-6f);
    }
    store_shared(base + at.norms + 4 * index, factor);
  }
  sync_block();
  const auto put = [&](int place, int i, Pair value) {
    const Terms<pieces> terms = split<pieces>(value.x, value.y);
#pragma unroll
    for (int piece = 0; piece < pieces; ++piece)
      store_shared(base + place + piece * Layout::key_piece + swizzled(chunk_tokens * block + i, channel, 2 * K), terms.word[piece]);
  };
  Pair k[16], factor{1, 1};
#pragma unroll
  for (int quad = 0; quad < 4; ++quad) {
    float norm_q[4], norm_k[4];
    load_shared_quad(norm_q, base + at.norms + 4 * (chunk_tokens * block + 4 * quad));
    load_shared_quad(norm_k, base + at.norms + 4 * (segment_tokens + chunk_tokens * block + 4 * quad));
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int i = 4 * quad + e;
      const float norm = args.scale * norm_q[e];
      k[i] = unpack<half_precision>(k_words[i]) * Pair{norm_k[e], norm_k[e]};
      factor = factor * alpha[i];
      put(Layout::kd, i, k[i] * factor);
      put(Layout::qd, i, unpack<half_precision>(q_words[i]) * Pair{norm, norm} * factor);
    }
  }
  store_shared(base + at.gammas + 4 * (block * K + channel), factor);
  factor = {1, 1};
#pragma unroll
  for (int i = 15; i >= 0; --i) {
    put(Layout::kr, i, k[i] * factor);
    factor = factor * alpha[i];
  }
}

} // namespace kdacheck::cuda
