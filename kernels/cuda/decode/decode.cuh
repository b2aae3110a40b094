#pragma once
// What a block of the decode kernels does (decode.cu tells how they came to be).

#include "../device/exponential.cuh"
#include "../device/gate.cuh"
#include "../device/rows.cuh"

namespace kdacheck::cuda {

/// `columns` of the state in a block of `threads`.
template <int K, int columns, int threads> struct Cut {
  static constexpr int quads = columns / 4, rows_at_once = threads / quads, rows = K / rows_at_once, warps = threads / 32;
};

template <int K> struct Token {
  float alpha[K], k[K], q[K];
  float beta, qk;
};

template <int columns> struct Sums {
  float p[columns], r[columns];
};

__device__ __forceinline__ float sum_warp(float x) {
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) x += shuffle_xor(x, mask);
  return x;
}

/// What a warp reads of a token, not yet waited for.
template <int K> struct TokenBits {
  std::uint32_t q[K / 32], k[K / 32], gate[K / 32], beta;
  float bias[K / 32], A_log;
};
template <int K>
__device__ __forceinline__ TokenBits<K> load_token(const ForwardArguments& args, std::int64_t b, int t, int head, int lane) {
  const int head_q = head / (args.HV / args.H);
  TokenBits<K> bits;
  bits.A_log = args.A_log != nullptr ? args.A_log[head] : 0.0f;
  bits.beta = load_bits(args.beta.data, row_of(args.beta, b, t, head), args.beta_format);
#pragma unroll
  for (int m = 0; m < K / 32; ++m) {
    const int c = lane + 32 * m;
    const bool inside = c < args.K;
    bits.q[m] = inside ? load_bits(args.q.data, row_of(args.q, b, t, head_q) + c, args.qkv_format) : 0;
    bits.k[m] = inside ? load_bits(args.k.data, row_of(args.k, b, t, head_q) + c, args.qkv_format) : 0;
    bits.gate[m] = inside && args.gate != Gate::absent ? load_bits(args.g.data, row_of(args.g, b, t, head) + c, args.gate_format) : 0;
    bits.bias[m] = inside && args.dt_bias != nullptr ? args.dt_bias[static_cast<std::int64_t>(head) * args.K + c] : 0;
  }
  return bits;
}

/// One warp: everything of a token that does not depend on the state. Channels from args.K on are zero.
template <int K>
__device__ __forceinline__ void prepare(Token<K>& token, const ForwardArguments& args, const TokenBits<K>& bits, int lane) {
  const float growth = expf(bits.A_log);
  float q[K / 32], k[K / 32];
  float qq = 0, kk = 0, qk = 0;
#pragma unroll
  for (int m = 0; m < K / 32; ++m) {
    q[m] = number_of(bits.q[m], args.qkv_format);
    k[m] = number_of(bits.k[m], args.qkv_format);
    token.alpha[lane + 32 * m] =
        lane + 32 * m >= args.K ? 0.0f : // a gate whose rate overflows makes NaN of what is not there
            decay_exponential(log_decay(args.gate, number_of(bits.gate[m], args.gate_format), bits.bias[m], growth, args.lower_bound));
    qq += q[m] * q[m];
    kk += k[m] * k[m];
    qk += q[m] * k[m];
  }
  qk = sum_warp(qk);
  float norm_q = args.scale, norm_k = 1;
  if (args.l2norm) {
    norm_q /= sqrtf(sum_warp(qq) + 1e-6f);
    norm_k /= sqrtf(sum_warp(kk) + 1e-6f);
  }
#pragma unroll
  for (int m = 0; m < K / 32; ++m) {
    token.q[lane + 32 * m] = q[m] * norm_q;
    token.k[lane + 32 * m] = k[m] * norm_k;
  }
  if (lane == 0) {
    token.qk = qk * norm_q * norm_k;
    token.beta = step_size(args.beta_form, number_of(bits.beta, args.beta_format));
  }
}

/// Four neighbouring values of a row of v, not yet waited for.
struct ValueBits {
  std::uint32_t word[4];
};
__device__ __forceinline__ ValueBits load_values(const ForwardArguments& args, std::int64_t offset) {
  ValueBits bits;
#pragma unroll
  for (int e = 0; e < 4; ++e) bits.word[e] = load_bits(args.v.data, offset + e, args.qkv_format);
  return bits;
}

/// Where a thread of a block works: its four columns and its first row; rows are rows_at_once apart.
template <class Cut> struct Place {
  int lane, warp, quad, first_row;
  __device__ __forceinline__ explicit Place(int thread)
      : lane(thread % 32), warp(thread / 32), quad(thread % Cut::quads), first_row(thread / Cut::quads) {}
};

/// All tokens of a sequence and head over the part of the state that a block holds in S. `tokens` have been prepared; `values` are the
/// first token's; `column` is the thread's first, `inside` whether there are such.
template <int K, int columns, int threads>
__device__ __forceinline__ void run_tokens(float4 (&S)[Cut<K, columns, threads>::rows], const Token<K>* tokens, Sums<columns>* sums,
                                           const ForwardArguments& args, ValueBits values, std::int64_t b, int head, int column,
                                           bool inside, const Place<Cut<K, columns, threads>>& at) {
  using Cut = Cut<K, columns, threads>;
  const int count = static_cast<int>(args.T);
  for (int t = 0; t < count; ++t) {
    const Token<K>& token = tokens[t];
    const auto value = [&](int e) { return number_of(values.word[e], args.qkv_format); };
    const float4 v{value(0), value(1), value(2), value(3)};
    if (inside && t + 1 < count) values = load_values(args, row_of(args.v, b, t + 1, head) + column);
    float4 p{0, 0, 0, 0}, r{0, 0, 0, 0};
#pragma unroll
    for (int m = 0; m < Cut::rows; ++m) {
      const int c = at.first_row + Cut::rows_at_once * m;
      const float alpha = token.alpha[c], k = token.k[c], q = token.q[c];
      S[m].x *= alpha, S[m].y *= alpha, S[m].z *= alpha, S[m].w *= alpha;
      p.x += k * S[m].x, p.y += k * S[m].y, p.z += k * S[m].z, p.w += k * S[m].w;
      r.x += q * S[m].x, r.y += q * S[m].y, r.z += q * S[m].z, r.w += q * S[m].w;
    }
    float partial[8] = {p.x, p.y, p.z, p.w, r.x, r.y, r.z, r.w};
#pragma unroll
    for (int mask = Cut::quads; mask < 32; mask *= 2)
#pragma unroll
      for (int e = 0; e < 8; ++e) partial[e] += shuffle_xor(partial[e], mask);
    Sums<columns>* parity = sums + Cut::warps * (t % 2);
    if (at.lane < Cut::quads) {
      *reinterpret_cast<float4*>(parity[at.warp].p + 4 * at.quad) = {partial[0], partial[1], partial[2], partial[3]};
      *reinterpret_cast<float4*>(parity[at.warp].r + 4 * at.quad) = {partial[4], partial[5], partial[6], partial[7]};
    }
    sync_block();
    p = r = {0, 0, 0, 0};
#pragma unroll
    for (int w = 0; w < Cut::warps; ++w) {
      const float4 x = *reinterpret_cast<const float4*>(parity[w].p + 4 * at.quad),
                   y = *reinterpret_cast<const float4*>(parity[w].r + 4 * at.quad);
      p.x += x.x, p.y += x.y, p.z += x.z, p.w += x.w;
      r.x += y.x, r.y += y.y, r.z += y.z, r.w += y.w;
    }
    const float beta = token.beta;
    const float4 u{beta * (v.x - p.x), beta * (v.y - p.y), beta * (v.z - p.z), beta * (v.w - p.w)};
#pragma unroll
    for (int m = 0; m < Cut::rows; ++m) {
      const float k = token.k[at.first_row + Cut::rows_at_once * m];
      S[m].x += k * u.x, S[m].y += k * u.y, S[m].z += k * u.z, S[m].w += k * u.w;
    }
    if (at.first_row == 0 && inside) {
      const std::int64_t place = row_of(args.o, b, t, head) + column;
      const float out[4] = {r.x + token.qk * u.x, r.y + token.qk * u.y, r.z + token.qk * u.z, r.w + token.qk * u.w};
#pragma unroll
      for (int e = 0; e < 4; ++e) store_number(args.o.data, place + e, out[e], args.output_format);
    }
  }
}

/// The state's part in registers.
template <int K, int columns, int threads> __device__ __forceinline__ void decode_block(const ForwardArguments& args) {
  using Cut = Cut<K, columns, threads>;
  unsigned char* dynamic = dynamic_shared();
  auto* sums = reinterpret_cast<Sums<columns>*>(dynamic); // [2][warps]
  auto* tokens = reinterpret_cast<Token<K>*>(sums + 2 * Cut::warps);
  const Place<Cut> at(static_cast<int>(thread_index()));
  const int slices = (args.V + columns - 1) / columns;
  const int slice = static_cast<int>(block_index() % slices), head = static_cast<int>(block_index() / slices % args.HV);
  const std::int64_t b = block_index() / slices / args.HV;
  const std::int64_t slot = args.slot != nullptr ? args.slot[b] : b;
  const int count = static_cast<int>(args.T);
  TokenBits<K> bits{}; // read before the slot is known: the state's reads wait for that
  if (at.warp < count) bits = load_token<K>(args, b, at.warp, head, at.lane);
  const int column = slice * columns + 4 * at.quad;
  const bool inside = column < args.V;
  ValueBits values{};
  if (inside) values = load_values(args, row_of(args.v, b, 0, head) + column);
  if (slot < 0 || slot >= args.N) return;
  float* state = args.final_state + (slot * args.HV + head) * args.K * args.V + column;
  float4 S[Cut::rows];
#pragma unroll
  for (int m = 0; m < Cut::rows; ++m) {
    const int c = at.first_row + Cut::rows_at_once * m;
    S[m] =
        inside && c < args.K ? __ldcs(reinterpret_cast<const float4*>(state + static_cast<std::int64_t>(c) * args.V)) : float4{0, 0, 0, 0};
  }
  for (int t = at.warp; t < count; t += Cut::warps) {
    if (t > at.warp) bits = load_token<K>(args, b, t, head, at.lane);
    prepare<K>(tokens[t], args, bits, at.lane);
  }
  sync_block();
  run_tokens<K, columns, threads>(S, tokens, sums, args, values, b, head, column, inside, at);
  if (!inside) return;
#pragma unroll
  for (int m = 0; m < Cut::rows; ++m)
    if (const int c = at.first_row + Cut::rows_at_once * m; c < args.K)
      __stcs(reinterpret_cast<float4*>(state + static_cast<std::int64_t>(c) * args.V), S[m]);
}

/// Many heads: the state's part lies in shared memory, so that as many blocks as that holds have their reads on the way, not as many as
/// registers hold. A thread copies, reads and replaces the same elements.
template <int K, int columns, int threads> __device__ __forceinline__ void decode_staged_block(const ForwardArguments& args) {
  using Cut = Cut<K, columns, threads>;
  unsigned char* dynamic = dynamic_shared();
  auto* sums = reinterpret_cast<Sums<columns>*>(dynamic + sizeof(float) * K * columns); // [warps]
  auto* tokens = reinterpret_cast<Token<K>*>(sums + Cut::warps);
  const Place<Cut> at(static_cast<int>(thread_index()));
  const int slices = (args.V + columns - 1) / columns;
  const int slice = static_cast<int>(block_index() % slices), head = static_cast<int>(block_index() / slices % args.HV);
  const std::int64_t b = block_index() / slices / args.HV;
  const std::int64_t slot = args.slot != nullptr ? args.slot[b] : b;
  const int count = static_cast<int>(args.T), column = slice * columns + 4 * at.quad;
  const bool inside = column < args.V;
  TokenBits<K> bits{};
  if (at.warp < count) bits = load_token<K>(args, b, at.warp, head, at.lane);
  ValueBits values{};
  if (inside) values = load_values(args, row_of(args.v, b, 0, head) + column);
  if (slot < 0 || slot >= args.N) return;
  float* state = args.final_state + (slot * args.HV + head) * args.K * args.V + column;
  auto* part = reinterpret_cast<float4*>(dynamic) + at.first_row * Cut::quads + at.quad; // rows of the thread: rows_at_once apart
  constexpr int apart = Cut::rows_at_once * Cut::quads;
  const auto present = [&](int m) { return inside && at.first_row + Cut::rows_at_once * m < args.K; };
#pragma unroll
  for (int m = 0; m < Cut::rows; ++m) {
    const float* from = state + static_cast<std::int64_t>(at.first_row + Cut::rows_at_once * m) * args.V;
    copy_async(shared_address(part + apart * m), present(m) ? from : args.final_state, present(m) ? 16 : 0);
  }
  copy_async_commit();
  for (int t = at.warp; t < count; t += Cut::warps) {
    if (t > at.warp) bits = load_token<K>(args, b, t, head, at.lane);
    prepare<K>(tokens[t], args, bits, at.lane);
  }
  copy_async_wait<0>();
  sync_block();
  for (int t = 0; t < count; ++t) {
    const Token<K>& token = tokens[t];
    const auto value = [&](int e) { return number_of(values.word[e], args.qkv_format); };
    const float4 v{value(0), value(1), value(2), value(3)};
    if (inside && t + 1 < count) values = load_values(args, row_of(args.v, b, t + 1, head) + column);
    const auto decayed = [&](int m, float alpha) {
      const float4 x = part[apart * m];
      return float4{__fmul_rn(alpha, x.x), __fmul_rn(alpha, x.y), __fmul_rn(alpha, x.z), __fmul_rn(alpha, x.w)};
    };
    float partial[8] = {};
#pragma unroll
    for (int m = 0; m < Cut::rows; ++m) {
      const int c = at.first_row + Cut::rows_at_once * m;
      const float k = token.k[c], q = token.q[c];
      const float4 x = decayed(m, token.alpha[c]);
      partial[0] += k * x.x, partial[1] += k * x.y, partial[2] += k * x.z, partial[3] += k * x.w;
      partial[4] += q * x.x, partial[5] += q * x.y, partial[6] += q * x.z, partial[7] += q * x.w;
    }
#pragma unroll
    for (int mask = Cut::quads; mask < 32; mask *= 2)
#pragma unroll
      for (int e = 0; e < 8; ++e) partial[e] += shuffle_xor(partial[e], mask);
    if (at.lane < Cut::quads) {
      *reinterpret_cast<float4*>(sums[at.warp].p + 4 * at.quad) = {partial[0], partial[1], partial[2], partial[3]};
      *reinterpret_cast<float4*>(sums[at.warp].r + 4 * at.quad) = {partial[4], partial[5], partial[6], partial[7]};
    }
    sync_block();
    float4 p{0, 0, 0, 0}, r{0, 0, 0, 0};
#pragma unroll
    for (int w = 0; w < Cut::warps; ++w) {
      const float4 x = *reinterpret_cast<const float4*>(sums[w].p + 4 * at.quad),
                   y = *reinterpret_cast<const float4*>(sums[w].r + 4 * at.quad);
      p.x += x.x, p.y += x.y, p.z += x.z, p.w += x.w;
      r.x += y.x, r.y += y.y, r.z += y.z, r.w += y.w;
    }
    const bool last = t + 1 == count;
    if (!last) sync_block(); // sums are read before they are written again
    const float beta = token.beta;
    const float4 u{beta * (v.x - p.x), beta * (v.y - p.y), beta * (v.z - p.z), beta * (v.w - p.w)};
#pragma unroll
    for (int m = 0; m < Cut::rows; ++m) {
      const int c = at.first_row + Cut::rows_at_once * m;
      const float k = token.k[c];
      float4 x = decayed(m, token.alpha[c]);
      x = {fmaf(k, u.x, x.x), fmaf(k, u.y, x.y), fmaf(k, u.z, x.z), fmaf(k, u.w, x.w)};
      if (!last)
        part[apart * m] = x;
      else if (present(m))
        __stcs(reinterpret_cast<float4*>(state + static_cast<std::int64_t>(c) * args.V), x);
    }
    if (at.first_row == 0 && inside) {
      const std::int64_t place = row_of(args.o, b, t, head) + column;
      const float out[4] = {r.x + token.qk * u.x, r.y + token.qk * u.y, r.z + token.qk * u.z, r.w + token.qk * u.w};
#pragma unroll
      for (int e = 0; e < 4; ++e) store_number(args.o.data, place + e, out[e], args.output_format);
    }
  }
}

} // namespace kdacheck::cuda
