#pragma once
// Last pass of the general rule's backward pass, in fp32: pairs of tokens of one chunk, and from products to gradients.

#include "dplr_gradient_layout.cuh"

namespace kdacheck::cuda {

/// A channel of a chunk: `part` 0 with q, 1 with b. Writes dq (in place of Q) or db, and leaves dk (in place of C), da and what crosses
/// each token's decay.
template <int K, bool half_precision>
__device__ __forceinline__ void finish_channel(const GeneralGradients& gradient, Address base, const Segment& segment, int chunk, int head,
                                               int head_q, float growth, float bias, float& bias_sum, float& A_sum) {
  using Layout = GeneralGradientLayout<K>;
  const GradientArguments& last = gradient.last;
  const ForwardArguments& args = last.call;
  const int channel = static_cast<int>(thread_index()) % K, part = static_cast<int>(thread_index()) / K;
  const int first = chunk_tokens * chunk, tokens = segment.tokens - first < chunk_tokens ? segment.tokens - first : chunk_tokens;
  const std::int64_t batch = segment.span.batch, token = segment.first() + first;
  float alpha[16], a[16], k[16], x[16], column_a[16], column_k[16], flow[16]; // x: q, or b a row further up
  load_decays<GateCode::any>(alpha, args, row_of(args.g, batch, token, head) + channel, gate_of(args, head), bias, tokens);
  load_column<half_precision>(a, args.a, row_of(args.a, batch, token, head) + channel, tokens);
  load_column<half_precision>(k, args.k, row_of(args.k, batch, token, head_q) + channel, tokens);
  if (part == 0)
    load_column<half_precision>(x, args.q, row_of(args.q, batch, token, head_q) + channel, tokens);
  else
    load_column<half_precision>(x, args.b, row_of(args.b, batch, token, head) + channel + args.b.token, tokens - 1);
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
#pragma unroll
  for (int i = 0; i < 16; ++i) column_a[i] = column_k[i] = 0;
  const Address with_a = base + Layout::scores + chunk * 4096 + part * 2048, with_k = with_a + 1024;
  const Address rows = base + (part == 0 ? Layout::Q : Layout::B);
  if (part == 1 && gradient.db.data != nullptr) // nothing decays on the way to the first row of b
    store_number(gradient.db.data, row_of(gradient.db, batch, token, head) + channel,
                 load_shared_float(rows + result_offset<K>(0, static_cast<unsigned>(channel))), gradient.db_format);
  float factor = 1, same_a[16], same_k[16];
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    same_a[i] = same_k[i] = flow[i] = 0;
    if (i >= tokens - part) continue;
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
        same_a[i] = P[j % 4] * x[i], same_k[i] = R[j % 4] * x[i];
        continue;
      }
      decay *= alpha[j + 1];
      pairs += decay * (P[j % 4] * a[j] + R[j % 4] * k[j]);
      const float reach = decay * x[i];
      column_a[j] += reach * P[j % 4];
      column_k[j] += reach * R[j % 4];
    }
    const Address place = rows + result_offset<K>(static_cast<unsigned>(i + part), static_cast<unsigned>(channel));
    const float from_state = factor * load_shared_float(place);
    flow[i] = x[i] * from_state + x[i] * pairs;
    if (part == 0)
      store_shared(place, args.scale * (from_state + pairs + own));
    else if (gradient.db.data != nullptr)
      store_number(gradient.db.data, row_of(gradient.db, batch, token + i + 1, head) + channel, from_state + pairs + own,
                   gradient.db_format);
  }
  float sum = 0;
#pragma unroll
  for (int i = 15; i >= 0; --i) {
    sum += flow[i] - (a[i] * column_a[i] + k[i] * column_k[i]);
    flow[i] = sum;
    column_a[i] += same_a[i], column_k[i] += same_k[i];
  }
  // The two parts exchange what they have of columns: part 1 writes da, part 0 the rest.
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    const unsigned place = result_offset<K>(static_cast<unsigned>(i), static_cast<unsigned>(channel));
    if (part == 0) {
      store_shared(base + Layout::column_a + place, column_a[i]);
    } else {
      store_shared(base + Layout::B + place, column_k[i]);
      store_shared(base + Layout::flow + place, flow[i]);
    }
  }
  sync_block();
  factor = 1;
  float to_end[16];
#pragma unroll
  for (int i = 15; i >= 0; --i) {
    const unsigned place = result_offset<K>(static_cast<unsigned>(i), static_cast<unsigned>(channel));
    if (part == 1) {
      const float d_a =
          factor * load_shared_float(base + Layout::A + place) + (column_a[i] + load_shared_float(base + Layout::column_a + place));
      if (gradient.da.data != nullptr && i < tokens)
        store_number(gradient.da.data, row_of(gradient.da, batch, token + i, head) + channel, d_a, gradient.da_format);
    } else {
      const float end_a = factor * load_shared_float(base + Layout::A + place),
                  end_k = factor * load_shared_float(base + Layout::C + place);
      to_end[i] = a[i] * end_a + k[i] * end_k; // may nearly cancel: together first, then into the sum
      store_shared(base + Layout::C + place, end_k + (column_k[i] + load_shared_float(base + Layout::B + place)));
    }
    factor *= alpha[i];
  }
  if (part == 1 || args.gate == Gate::absent) return;
  const float kept = load_shared_float(base + Layout::kept + 4 * channel);
  float before = 0;
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    if (i >= tokens) continue;
    const float others =
        load_shared_float(base + Layout::flow + result_offset<K>(static_cast<unsigned>(i), static_cast<unsigned>(channel)));
    const float arriving = ((flow[i] + others) + before) + kept;
    before += to_end[i];
    const float raw = load_number(args.g.data, row_of(args.g, batch, token + i, head) + channel, args.gate_format);
    const DecaySlope slope = slope_of<GateCode::any>(args, raw, bias, growth);
    const float leaving = within(last.dg_format, arriving * slope.along_x);
    bias_sum += leaving;
    A_sum += arriving * slope.along_A_log;
    if (last.dg.data != nullptr) store_number(last.dg.data, row_of(last.dg, batch, token + i, head) + channel, leaving, last.dg_format);
  }
}

/// Writes dq or dk of a chunk's tokens from the gradient of what the l2norm gives, a warp a token; sums over grouped heads as write_keys.
template <int K, bool half_precision>
__device__ __forceinline__ void write_general_keys(const ForwardArguments& args, Address result, const View& from, const View& to,
                                                   Stored format, float* group, const Segment& segment, int chunk, int head, int head_q) {
  constexpr int parts = K / 32, warps = K / 16;
  const int lane = static_cast<int>(thread_index() % 32), heads = args.HV / args.H, place_in_group = head - head_q * heads;
  const bool first = place_in_group == 0, last = place_in_group == heads - 1;
  if (to.data == nullptr) return;
  for (int i = static_cast<int>(thread_index() / 32); i < chunk_tokens; i += warps) {
    if (chunk_tokens * chunk + i >= segment.tokens) break;
    const std::int64_t token = segment.first() + chunk_tokens * chunk + i;
    float d[parts], x[parts], product = 0;
    float* sum = group + ((segment.span.batch * args.T + token) * args.H + head_q) * K;
#pragma unroll
    for (int part = 0; part < parts; ++part) {
      const int channel = lane + 32 * part;
      d[part] = load_shared_float(result + result_offset<K>(static_cast<unsigned>(i), static_cast<unsigned>(channel)));
      if (heads > 1 && !first) d[part] += sum[channel];
      if (heads > 1 && !last) sum[channel] = d[part];
    }
    if (!last) continue;
    if (args.l2norm) {
      const std::int64_t row = row_of(from, segment.span.batch, token, head_q);
      float square = 0;
#pragma unroll
      for (int part = 0; part < parts; ++part) {
        x[part] = unpack<half_precision>(static_cast<const std::uint16_t*>(from.data)[row + lane + 32 * part]).x;
        square += x[part] * x[part];
        product += x[part] * d[part];
      }
#pragma unroll
      for (int mask = 16; mask > 0; mask /= 2) {
        square += shuffle_xor(square, mask);
        product += shuffle_xor(product, mask);
      }
      const float norm = reciprocal_root(square + 1e-6f);
#pragma unroll
      for (int part = 0; part < parts; ++part) d[part] = norm * (d[part] - x[part] * norm * (norm * product));
    }
    const std::int64_t target = row_of(to, segment.span.batch, token, head_q);
#pragma unroll
    for (int part = 0; part < parts; ++part) store_number(to.data, target + lane + 32 * part, d[part], format);
  }
}

} // namespace kdacheck::cuda
