#pragma once
// Last pass of the general rule's backward pass, in fp32: pairs of tokens of one chunk, and from products to gradients.

#include "dplr_gradient_layout.cuh"

namespace kdacheck::cuda {

/// Starts copying the rows of q, k, a, b and g of a chunk as they are stored; absent rows become zero.
template <int K>
__device__ __forceinline__ void fetch_raw(const GeneralGradients& gradient, Address base, const Segment& segment, int chunk, int head,
                                          int head_q) {
  using Layout = GeneralGradientLayout<K>;
  const ForwardArguments& args = gradient.last.call;
  const int first = chunk_tokens * chunk, tokens = segment.tokens - first, thread = static_cast<int>(thread_index());
  const std::int64_t batch = segment.span.batch, token = segment.first() + first;
  const auto copy = [&](const View& view, std::int64_t of, int row_bytes, int element_bytes, Address to) { // 2 K threads
    for (int byte = 16 * thread; byte < chunk_tokens * row_bytes; byte += 16 * 2 * K) {
      const int row = byte / row_bytes, inside = row < tokens ? row : 0;
      copy_async(to + byte,
                 static_cast<const unsigned char*>(view.data) + (row_of(view, batch, token + inside, of)) * element_bytes +
                     byte % row_bytes,
                 row < tokens ? 16 : 0);
    }
  };
  copy(args.q, head_q, 2 * K, 2, base + Layout::raw);
  copy(args.k, head_q, 2 * K, 2, base + Layout::raw + Layout::raw_rows);
  copy(args.a, head, 2 * K, 2, base + Layout::raw + 2 * Layout::raw_rows);
  copy(args.b, head, 2 * K, 2, base + Layout::raw + 3 * Layout::raw_rows);
  if (args.gate != Gate::absent) {
    if (args.gate_format == Stored::fp32)
      copy(args.g, head, 4 * K, 4, base + Layout::raw_g);
    else
      copy(args.g, head, 2 * K, 2, base + Layout::raw_g);
  }
  copy_async_commit();
}

/// One number of those rows.
template <bool half_precision> __device__ __forceinline__ float raw_number(Address rows, int place) {
  const std::uint32_t word = load_shared_word(rows + 2 * (place & ~1));
  const Pair pair = unpack<half_precision>(word);
  return place % 2 == 0 ? pair.x : pair.y;
}
/// Two neighbouring numbers, the first of even place.
template <bool half_precision> __device__ __forceinline__ Pair raw_pair(Address rows, int place) {
  return unpack<half_precision>(load_shared_word(rows + 2 * place));
}
template <int K> __device__ __forceinline__ Pair raw_gates(const ForwardArguments& args, Address base, int place) {
  const Address rows = base + GeneralGradientLayout<K>::raw_g;
  if (args.gate_format == Stored::fp32) return load_shared_pair(rows + 4 * place);
  return args.gate_format == Stored::bf16 ? raw_pair<false>(rows, place) : raw_pair<true>(rows, place);
}

/// Rows of a chunk are dealt out to threads by pairs of channels: every fourth token.
template <int K> struct PairOfChannels {
  static constexpr int step = 4;
  int channel = 2 * (static_cast<int>(thread_index()) % (K / 2)), first = static_cast<int>(thread_index()) / (K / 2);
};

/// The decays of a chunk, in place of `flow`. Loops over tokens are rolled: the code must fit the instruction cache.
template <int K>
__device__ __forceinline__ void put_decays(const ForwardArguments& args, Address base, HeadGate gate, Pair bias, int tokens) {
  using Layout = GeneralGradientLayout<K>;
  const PairOfChannels<K> own;
#pragma unroll 1
  for (int i = own.first; i < chunk_tokens; i += own.step) {
    Pair alpha{1, 1};
    if (args.gate != Gate::absent && i < tokens) {
      const Pair x = raw_gates<K>(args, base, i * K + own.channel);
      alpha = {exp2_gradual(log2_decay(args, gate, x.x, bias.x)), exp2_gradual(log2_decay(args, gate, x.y, bias.y))};
    }
    store_shared(base + Layout::flow + result_offset<K>(static_cast<unsigned>(i), static_cast<unsigned>(own.channel)), alpha);
  }
}

/// A channel of a chunk: `part` 0 with q, 1 with b. Leaves dq in place of Q, db of B, dk of C, da in `column_a`, and in `flow` what crosses
/// each token's decay.
template <int K, bool half_precision> __device__ __forceinline__ void finish_channel(Address base, int chunk, float scale) {
  using Layout = GeneralGradientLayout<K>;
  const int channel = static_cast<int>(thread_index()) % K, part = static_cast<int>(thread_index()) / K;
  const auto place = [&](int area, int i) {
    return base + area + result_offset<K>(static_cast<unsigned>(i), static_cast<unsigned>(channel));
  };
  float alpha[16], a[16], k[16], x[16], column_a[16], column_k[16], flow[16]; // x: q, or b a row further up
  const Address raw_x = base + Layout::raw + (part == 0 ? 0 : 3 * Layout::raw_rows + 2 * K);
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    const int number = i * K + channel;
    k[i] = raw_number<half_precision>(base + Layout::raw + Layout::raw_rows, number);
    a[i] = raw_number<half_precision>(base + Layout::raw + 2 * Layout::raw_rows, number);
    x[i] = i + part < 16 ? raw_number<half_precision>(raw_x, number) : 0.0f;
    alpha[i] = load_shared_float(place(Layout::flow, i));
    column_a[i] = column_k[i] = 0;
  }
  const Address norms = base + Layout::norms + chunk * 128;
#pragma unroll
  for (int quad = 0; quad < 4; ++quad) {
    float of_q[4], of_k[4];
    load_shared_quad(of_q, norms + 16 * quad);
    load_shared_quad(of_k, norms + 64 + 16 * quad);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      if (part == 0) x[4 * quad + e] *= of_q[e];
      k[4 * quad + e] *= of_k[e];
    }
  }
  sync_block(); // raw rows of a and b, and decays, have been read
  const Address with_a = base + Layout::scores + chunk * 4096 + part * 2048, with_k = with_a + 1024;
  const int rows = part == 0 ? Layout::Q : Layout::B;
  const float out = part == 0 ? scale : 1.0f;
  float factor = 1;
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    factor *= alpha[i];
    float pairs = 0, own = 0, decay = 1, P[4], R[4];
#pragma unroll
    for (int j = i; j >= 0; --j) {
      if (j == i || j % 4 == 3) {
        load_shared_quad(P, with_a + 4 * (16 * i + j / 4 * 4));
        load_shared_quad(R, with_k + 4 * (16 * i + j / 4 * 4));
      }
      if (j == i) {
        own = P[j % 4] * a[j] + R[j % 4] * k[j];
        continue;
      }
      decay *= alpha[j + 1];
      pairs += decay * (P[j % 4] * a[j] + R[j % 4] * k[j]);
      const float reach = decay * x[i];
      column_a[j] += reach * P[j % 4];
      column_k[j] += reach * R[j % 4];
    }
    flow[i] = 0;
    if (i + part == 16) continue; // no row of b
    const Address row = place(rows, i + part);
    const float from_state = factor * load_shared_float(row);
    flow[i] = x[i] * from_state + x[i] * pairs;
    store_shared(row, out * (from_state + pairs + own)); // of b, the first row stays as it is: nothing decays on the way to it
  }
  float sum = 0;
#pragma unroll
  for (int i = 15; i >= 0; --i) {
    sum += flow[i] - (a[i] * column_a[i] + k[i] * column_k[i]);
    flow[i] = sum;
    column_a[i] += load_shared_float(with_a + 4 * 17 * i) * x[i]; // without decay: only now
    column_k[i] += load_shared_float(with_k + 4 * 17 * i) * x[i];
  }
  // The two parts exchange what they have of columns: part 1 finishes da, part 0 the rest.
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    if (part == 0) {
      store_shared(place(Layout::column_a, i), column_a[i]);
    } else {
      store_shared(place(Layout::column_k, i), column_k[i]);
      store_shared(place(Layout::flow, i), flow[i]);
    }
  }
  sync_block();
  factor = 1;
  float to_end[16];
#pragma unroll
  for (int i = 15; i >= 0; --i) {
    const float end_a = factor * load_shared_float(place(Layout::A, i));
    if (part == 1) {
      store_shared(place(Layout::column_a, i), end_a + (column_a[i] + load_shared_float(place(Layout::column_a, i))));
    } else {
      const float end_k = factor * load_shared_float(place(Layout::C, i));
      to_end[i] = a[i] * end_a + k[i] * end_k; // may nearly cancel: together first, then into the sum
      store_shared(place(Layout::C, i), end_k + (column_k[i] + load_shared_float(place(Layout::column_k, i))));
    }
    factor *= alpha[i];
  }
  if (part == 1) return;
  const float kept = load_shared_float(base + Layout::kept + 4 * channel);
  float before = 0;
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    const Address row = place(Layout::flow, i);
    store_shared(row, ((flow[i] + load_shared_float(row)) + before) + kept);
    before += to_end[i];
  }
}

/// Writes da, db, and dg through the gate; adds this thread's part to the sums for d dt_bias and d A_log.
template <int K>
__device__ __forceinline__ void write_own_rows(const GeneralGradients& gradient, Address base, const Segment& segment, int chunk, int head,
                                               HeadGate gate, Pair bias, Pair& bias_sum, float& A_sum) {
  using Layout = GeneralGradientLayout<K>;
  const GradientArguments& last = gradient.last;
  const ForwardArguments& args = last.call;
  const PairOfChannels<K> own;
  const int first = chunk_tokens * chunk;
  const std::int64_t batch = segment.span.batch, token = segment.first() + first + own.first;
  std::int64_t to_a = row_of(gradient.da, batch, token, head) + own.channel, to_b = row_of(gradient.db, batch, token, head) + own.channel,
               to_g = row_of(last.dg, batch, token, head) + own.channel;
  const float growth = gate.growth > 3.38e38f ? 3.38e38f : gate.growth; // 0 times it is 0
#pragma unroll 1
  for (int i = own.first; i < chunk_tokens && first + i < segment.tokens; i += own.step) {
    const unsigned place = result_offset<K>(static_cast<unsigned>(i), static_cast<unsigned>(own.channel));
    const auto write = [&](const View& view, std::int64_t& to, int area, Stored format) {
      const Pair x = load_shared_pair(base + area + place);
      if (view.data != nullptr) store_channels<2>(view.data, to, {x.x, x.y}, format);
      to += own.step * view.token;
    };
    write(gradient.da, to_a, Layout::column_a, gradient.da_format);
    write(gradient.db, to_b, Layout::B, gradient.db_format);
    if (args.gate == Gate::absent) continue;
    const Pair arriving = load_shared_pair(base + Layout::flow + place), x = raw_gates<K>(args, base, i * K + own.channel);
    const DecaySlope slope[2] = {slope_of<GateCode::any>(args, x.x, bias.x, growth), slope_of<GateCode::any>(args, x.y, bias.y, growth)};
    const float leaving[2] = {within(last.dg_format, arriving.x * slope[0].along_x), within(last.dg_format, arriving.y * slope[1].along_x)};
    bias_sum = {bias_sum.x + leaving[0], bias_sum.y + leaving[1]};
    A_sum += arriving.x * slope[0].along_A_log + arriving.y * slope[1].along_A_log;
    if (last.dg.data != nullptr) store_channels<2>(last.dg.data, to_g, leaving, last.dg_format);
    to_g += own.step * last.dg.token;
  }
}

/// Writes dq or dk of a chunk's tokens from the gradient of what the l2norm gives, four channels a lane; sums over grouped heads as
/// write_keys: a lane always meets the same elements.
template <int K, bool half_precision>
__device__ __forceinline__ void write_general_keys(const ForwardArguments& args, Address result, Address raw, const View& to, Stored format,
                                                   float* group, const Segment& segment, int chunk, int head, int head_q) {
  constexpr int lanes = K / 4, step = 2 * K / lanes; // of a token; tokens at once
  const int thread = static_cast<int>(thread_index()), channel = 4 * (thread % lanes), heads = args.HV / args.H;
  const bool first = head == head_q * heads, last = head == (head_q + 1) * heads - 1;
  if (to.data == nullptr) return;
#pragma unroll 1
  for (int i = thread / lanes; i < chunk_tokens; i += step) {
    const bool inside = chunk_tokens * chunk + i < segment.tokens; // all lanes take part in the sums
    const std::int64_t token = segment.first() + (inside ? chunk_tokens * chunk + i : 0);
    float d[4];
    load_shared_quad(d, result + result_offset<K>(static_cast<unsigned>(i), static_cast<unsigned>(channel)));
    if (heads > 1) {
      float* sum = group + ((segment.span.batch * args.T + token) * args.H + head_q) * K + channel;
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        if (!first && inside) d[e] += sum[e];
        if (!last && inside) sum[e] = d[e];
      }
      if (!last) continue;
    }
    if (args.l2norm) {
      const Pair x[2] = {raw_pair<half_precision>(raw, i * K + channel), raw_pair<half_precision>(raw, i * K + channel + 2)};
      float square = (x[0].x * x[0].x + x[0].y * x[0].y) + (x[1].x * x[1].x + x[1].y * x[1].y);
      float product = (x[0].x * d[0] + x[0].y * d[1]) + (x[1].x * d[2] + x[1].y * d[3]);
#pragma unroll
      for (int mask = lanes / 2; mask > 0; mask /= 2) {
        square += shuffle_xor(square, mask);
        product += shuffle_xor(product, mask);
      }
      const float norm = reciprocal_root(square + 1e-6f), along = norm * (norm * product);
      d[0] = norm * (d[0] - x[0].x * along), d[1] = norm * (d[1] - x[0].y * along);
      d[2] = norm * (d[2] - x[1].x * along), d[3] = norm * (d[3] - x[1].y * along);
    }
    if (inside) store_channels<4>(to.data, row_of(to, segment.span.batch, token, head_q) + channel, d, format);
  }
}

} // namespace kdacheck::cuda
