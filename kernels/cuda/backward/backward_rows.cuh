#pragma once
// Last pass, third part: in fp32, pairs of tokens of one sub-block, and from products to gradients. A thread works on one
// channel of 16 tokens at a time.
//
// dg_t = sum over i >= t of (qd_i Q_i + kd_i N_i - kr_i C_i + pairs of the sub-block) + ends + kept. qd, kd, kr are the operands
// as they were rounded for the products, so that what tokens of one segment send each other cancels to fp32: row i times
// column j is one and the same rounded term on both sides. Pairs i = j have no decay: they never enter dg.

#include "backward_prepare.cuh"

namespace kdacheck::cuda {

/// A number as its terms hold it.
template <int pieces> __device__ __forceinline__ float rounded(float x) {
  const float high = unpack_bf16(pack_bf16(x, 0)).x;
  if constexpr (pieces == 1) return high;
  return high + unpack_bf16(pack_bf16(x - high, 0)).x;
}

/// Bits of one channel of 16 rows, `Word` wide; zero from row `tokens` on.
template <class Word>
__device__ __forceinline__ void load_column_bits(std::uint32_t (&bits)[16], const Word* from, std::int64_t stride, int tokens) {
  if (tokens >= chunk_tokens) {
#pragma unroll
    for (int i = 0; i < 16; ++i, from += stride) bits[i] = *from;
  } else {
#pragma unroll
    for (int i = 0; i < 16; ++i, from += stride) bits[i] = i < tokens ? *from : Word{0};
  }
}

/// One channel of 16 rows of q or k.
template <bool half_precision>
__device__ __forceinline__ void load_column(float (&x)[16], const View& view, std::int64_t offset, int tokens) {
  std::uint32_t bits[16];
  load_column_bits(bits, static_cast<const std::uint16_t*>(view.data) + offset, view.token, tokens);
#pragma unroll
  for (int i = 0; i < 16; ++i) x[i] = unpack<half_precision>(bits[i]).x;
}

/// Decays of one channel of 16 rows; 1 from row `tokens` on.
template <GateCode code>
__device__ __forceinline__ void load_decays(float (&alpha)[16], const ForwardArguments& args, std::int64_t offset, HeadGate gate,
                                            float bias, int tokens) {
  if (args.gate == Gate::absent) {
#pragma unroll
    for (int i = 0; i < 16; ++i) alpha[i] = 1;
    return;
  }
  std::uint32_t bits[16];
  if (args.gate_format == Stored::fp32) {
    load_column_bits(bits, static_cast<const std::uint32_t*>(args.g.data) + offset, args.g.token, tokens);
  } else {
    load_column_bits(bits, static_cast<const std::uint16_t*>(args.g.data) + offset, args.g.token, tokens);
    if (args.gate_format == Stored::bf16) {
#pragma unroll
      for (int i = 0; i < 16; ++i) bits[i] <<= 16;
    } else {
#pragma unroll
      for (int i = 0; i < 16; ++i) bits[i] = float_as_bits(unpack_fp16(bits[i]).x);
    }
  }
#pragma unroll
  for (int i = 0; i < 16; ++i) alpha[i] = decay_of<code>(args, gate, bits_as_float(bits[i]), bias);
  if (tokens < chunk_tokens)
#pragma unroll
    for (int i = 0; i < 16; ++i)
      if (i >= tokens) alpha[i] = 1;
}

/// Adds pairs of this warp's sub-block to the rows and columns in shared memory. They then hold: row_q the gradient of the
/// normalised q, row_k that of the normalised k, columns the sum of dg's terms from that token to the sub-block's end; `totals`
/// (over gammas) this sum over the whole sub-block.
template <GateCode code, bool narrow = false, int K, int pieces, bool half_precision>
__device__ __forceinline__ void finish_sub_block(const ForwardArguments& args, Address base,
                                                 const GradientLayout<K, pieces, half_precision>& at, const Segment& segment, int head,
                                                 int head_q) {
  using Layout = GradientLayout<K, pieces, half_precision>;
  const int warp = static_cast<int>(thread_index() / 32), lane = static_cast<int>(thread_index() % 32);
  const int block = warp % sub_blocks, part = warp / sub_blocks, first = chunk_tokens * block, tokens = segment.tokens - first;
  const std::int64_t row = segment.first() + first;
  const HeadGate gate = gate_of(args, head);
  const Address of_q = base + at.scores + block * 1024, of_k = of_q + sub_blocks * 1024;
#pragma unroll 1
  for (int turn = 0; turn < 2; ++turn) {
    const int channel = 64 * part + 32 * turn + lane;
    if (narrow && channel >= args.K) break;
    const float bias =
        args.dt_bias != nullptr ? args.dt_bias[static_cast<std::int64_t>(head) * channels_of<K, narrow>(args) + channel] : 0.0f;
    float alpha[16], k[16], column[16], flow[16]; // flow: q until the row is done
    load_column<half_precision>(flow, args.q, row_of(args.q, segment.span.batch, row, head_q) + channel, tokens);
    load_column<half_precision>(k, args.k, row_of(args.k, segment.span.batch, row, head_q) + channel, tokens);
    load_decays<code>(alpha, args, row_of(args.g, segment.span.batch, row, head) + channel, gate, bias, tokens);
#pragma unroll
    for (int i = 0; i < 16; ++i) column[i] = 0;
#pragma unroll
    for (int quad = 0; quad < 4; ++quad) {
      float norm_q[4], norm_k[4];
      load_shared_quad(norm_q, base + at.norms + 4 * (first + 4 * quad));
      load_shared_quad(norm_k, base + at.norms + 4 * (segment_tokens + first + 4 * quad));
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        flow[4 * quad + e] *= args.scale * norm_q[e];
        k[4 * quad + e] *= norm_k[e];
      }
    }
    float factor = 1;
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      const float q = flow[i];
      factor *= alpha[i];
      float d_q = 0, d_k = 0, decay = 1;
      float P[4], N[4], same = 0;
#pragma unroll
      for (int j = i; j >= 0; --j) {
        if (j == i || j % 4 == 3) {
          load_shared_quad(P, of_q + 4 * (16 * i + j / 4 * 4));
          load_shared_quad(N, of_k + 4 * (16 * i + j / 4 * 4));
        }
        if (j == i) {
          same = P[j % 4];
          continue;
        }
        decay *= alpha[j + 1];
        const float kj = k[j] * decay;
        d_q += P[j % 4] * kj;
        d_k += N[j % 4] * kj;
        column[j] += decay * (P[j % 4] * q + N[j % 4] * k[i]);
      }
      const Address place = result_offset<K>(first + i, channel);
      const float row_q = load_shared_float(base + Layout::row_q + place), row_k = load_shared_float(base + Layout::row_k + place);
      flow[i] = rounded<pieces>(q * factor) * row_q + rounded<pieces>(k[i] * factor) * row_k + (q * d_q + k[i] * d_k);
      store_shared(base + Layout::row_q + place, args.scale * (factor * row_q + d_q + same * k[i]));
      store_shared(base + Layout::row_k + place, factor * row_k + d_k + same * q);
    }
    factor = 1;
    float sum = 0;
#pragma unroll
    for (int j = 15; j >= 0; --j) {
      const Address place = result_offset<K>(first + j, channel);
      const float to_end = load_shared_float(base + Layout::columns + place);
      const float leaving = first + j == segment.tokens - 1 ? 0.0f : rounded<pieces>(k[j] * factor) * to_end;
      sum += flow[j] - (leaving + k[j] * column[j]);
      store_shared(base + Layout::columns + place, sum);
      store_shared(base + Layout::row_k + place, load_shared_float(base + Layout::row_k + place) + (factor * to_end + column[j]));
      factor *= alpha[j];
    }
    store_shared(base + at.gammas + 4 * (block * K + channel), sum);
  }
}

/// `count` (2 or 4) neighbouring numbers to a gradient.
template <int count>
__device__ __forceinline__ void store_channels(void* data, std::int64_t offset, const float (&x)[count], Stored format) {
  std::uint32_t words[count];
  if (format == Stored::fp32) {
#pragma unroll
    for (int e = 0; e < count; ++e) words[e] = float_as_bits(x[e]);
    store_global_words<count>(static_cast<float*>(data) + offset, words);
  } else {
    std::uint32_t halves[count / 2];
#pragma unroll
    for (int e = 0; e < count / 2; ++e) {
      halves[e] = format == Stored::bf16 ? pack_bf16(x[2 * e], x[2 * e + 1]) : pack_fp16(x[2 * e], x[2 * e + 1]);
    }
    store_global_words<count / 2>(static_cast<std::uint16_t*>(data) + offset, halves);
  }
}

/// Writes dq or dk of all tokens from the gradient of what the l2norm gives: a warp two tokens at a time, 16 lanes each. Where
/// value heads are grouped (`heads` > 1), adds it to `group` first, and writes after the last of them; a lane always meets the same
/// elements, in the order of heads.
template <int K, bool half_precision, bool narrow = false>
__device__ __forceinline__ void write_keys(const ForwardArguments& args, Address result, Address norms, const View& from, const View& to,
                                           Stored format, float* group, int heads, int first_place, const Segment& segment, int head,
                                           int head_q) {
  constexpr int parts = K / 64, warps = K / 16, step = 2 * warps; // parts of four channels, 64 channels apart
  const int lane = static_cast<int>(thread_index() % 32), channel = 4 * (lane % 16);
  const int place_in_group = first_place + head - head_q * (args.HV / args.H);
  const bool first = place_in_group == 0, last = place_in_group == heads - 1;
  if (last && to.data == nullptr && heads == 1) return;
  const bool with_norm = args.l2norm && last;
  const auto present = [&](int part) { return !narrow || channel + 64 * part < args.K; };
#pragma unroll 1
  for (int begin = 2 * static_cast<int>(thread_index() / 32); begin < segment.tokens; begin += step) {
    const int token = begin + lane / 16;
    const bool inside = token < segment.tokens; // all lanes take part in the sums
    const std::int64_t row = segment.first() + (inside ? token : begin);
    std::uint32_t words[parts][2]{};
    if (with_norm) {
      const auto* source = static_cast<const std::uint16_t*>(from.data) + row_of(from, segment.span.batch, row, head_q) + channel;
#pragma unroll
      for (int part = 0; part < parts; ++part)
#pragma unroll
        for (int e = 0; e < 2; ++e)
          if (present(part)) words[part][e] = reinterpret_cast<const std::uint32_t*>(source + 64 * part)[e];
    }
    float d[parts][4];
#pragma unroll
    for (int part = 0; part < parts; ++part) {
      if (present(part)) {
        load_shared_quad(d[part], result + result_offset<K>(token, channel + 64 * part));
      } else {
#pragma unroll
        for (int e = 0; e < 4; ++e) d[part][e] = 0;
      }
    }
    if (heads > 1) {
      float* sum = group + ((segment.span.batch * args.T + row) * args.H + head_q) * channels_of<K, narrow>(args) + channel;
#pragma unroll
      for (int part = 0; part < parts; ++part)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          if (!present(part)) continue;
          if (!first) d[part][e] += sum[64 * part + e];
          if (!last && inside) sum[64 * part + e] = d[part][e];
        }
      if (!last) continue;
    }
    if (to.data == nullptr) continue;
    if (args.l2norm) {
      const float norm = load_shared_float(norms + 4 * token);
      float product = 0;
#pragma unroll
      for (int part = 0; part < parts; ++part)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const Pair x = unpack<half_precision>(words[part][e]);
          product += x.x * norm * d[part][2 * e] + x.y * norm * d[part][2 * e + 1];
        }
#pragma unroll
      for (int mask = 8; mask > 0; mask /= 2) product += shuffle_xor(product, mask);
#pragma unroll
      for (int part = 0; part < parts; ++part)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const Pair x = unpack<half_precision>(words[part][e]);
          d[part][2 * e] = norm * (d[part][2 * e] - x.x * norm * product);
          d[part][2 * e + 1] = norm * (d[part][2 * e + 1] - x.y * norm * product);
        }
    }
    if (!inside) continue;
    const std::int64_t target = row_of(to, segment.span.batch, row, head_q) + channel;
#pragma unroll
    for (int part = 0; part < parts; ++part)
      if (present(part)) store_channels<4>(to.data, target + 64 * part, d[part], format);
  }
}

template <GateCode code> __device__ __forceinline__ DecaySlope slope_of(const ForwardArguments& args, float x, float bias, float growth) {
  if constexpr (code == GateCode::any)
    if (args.gate == Gate::softplus || args.gate == Gate::sigmoid) return decay_slope(args.gate, x, bias, growth, 0);
  if (code == GateCode::bounded || (code == GateCode::any && args.gate == Gate::bounded))
    return bounded_slope(x, bias, growth, args.lower_bound);
  return {1.0f, 0.0f};
}

/// Writes dg; `sums` in shared memory receives d dt_bias [4][K] and d A_log [warps] of this segment.
template <GateCode code, bool narrow = false, int K, int pieces, bool half_precision>
__device__ __forceinline__ void write_gate(const GradientArguments& gradient, Address base,
                                           const GradientLayout<K, pieces, half_precision>& at, const Segment& segment, int head,
                                           Address sums) {
  using Layout = GradientLayout<K, pieces, half_precision>;
  const ForwardArguments& args = gradient.call;
  const int warp = static_cast<int>(thread_index() / 32), lane = static_cast<int>(thread_index() % 32);
  const int block = warp % sub_blocks, part = warp / sub_blocks, channel = 64 * part + 2 * lane, first = chunk_tokens * block;
  Pair later{0, 0}, bias{0, 0}, bias_sum{0, 0};
#pragma unroll
  for (int i = sub_blocks - 1; i > 0; --i)
    if (i > block) {
      const Pair total = load_shared_pair(base + at.gammas + 4 * (i * K + channel));
      later = {later.x + total.x, later.y + total.y};
    }
  const Pair ends = load_shared_pair(base + at.ends + 4 * channel), kept = load_shared_pair(base + at.kept + 4 * channel);
  if (args.dt_bias != nullptr && (!narrow || channel < args.K)) {
    const float* biases = args.dt_bias + static_cast<std::int64_t>(head) * channels_of<K, narrow>(args) + channel;
    bias = {biases[0], biases[1]};
  }
  const HeadGate gate = gate_of(args, head);
  const float growth = gate.growth > 3.38e38f ? 3.38e38f : gate.growth; // 0 times it is 0
  float A_sum = 0;
  const std::int64_t row = segment.first() + first;
  const int tokens = narrow && channel >= args.K ? -chunk_tokens : segment.tokens - first;
  const std::int64_t g_row = row_of(args.g, segment.span.batch, row, head) + channel;
  std::int64_t target = row_of(gradient.dg, segment.span.batch, row, head) + channel;
  Pair x[4], next[4]{};
#pragma unroll 1
  for (int quad = -4; quad < chunk_tokens && quad < tokens; quad += 4) {
#pragma unroll
    for (int i = 0; i < 4; ++i) x[i] = next[i];
    if (quad + 4 < chunk_tokens) load_gate_rows(next, args, g_row + (quad + 4) * args.g.token, tokens - quad - 4);
    if (quad < 0) continue;
#pragma unroll
    for (int i = 0; i < 4; ++i, target += gradient.dg.token) {
      if (quad + i >= tokens) continue;
      const Pair own = load_shared_pair(base + Layout::columns + result_offset<K>(first + quad + i, channel));
      // What the state keeps may be far larger than what each token adds: it comes last and rounds the sum once.
      const Pair arriving{((own.x + later.x) + ends.x) + kept.x, ((own.y + later.y) + ends.y) + kept.y};
      const DecaySlope slope[2] = {slope_of<code>(args, x[i].x, bias.x, growth), slope_of<code>(args, x[i].y, bias.y, growth)};
      const float leaving[2] = {within(gradient.dg_format, arriving.x * slope[0].along_x),
                                within(gradient.dg_format, arriving.y * slope[1].along_x)};
      bias_sum = {bias_sum.x + leaving[0], bias_sum.y + leaving[1]};
      A_sum += arriving.x * slope[0].along_A_log + arriving.y * slope[1].along_A_log;
      if (gradient.dg.data != nullptr) store_channels<2>(gradient.dg.data, target, leaving, gradient.dg_format);
    }
  }
  store_shared(sums + 4 * (block * K + channel), bias_sum);
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) A_sum += shuffle_xor(A_sum, mask);
  if (lane == 0) store_shared(sums + 4 * (sub_blocks * K + warp), A_sum);
}

} // namespace kdacheck::cuda
