// Decode: 1 to 8 tokens a sequence, fp32 state read and written once, in place.
//
// A block owns some value columns of one head's state: every row of a thread is loaded before anything else is, so that all
// its 16-byte loads are in flight together. Meanwhile one warp a token prepares alpha, k, q, beta and q.k in shared memory.
// Per token one pass over the registers gives
//   p = S^T (alpha k),  r = S^T (alpha q),   then  u = beta (v - p),  S = alpha S + k u^T,  o = r + (q.k) u   (scale in q)
// with one barrier. Bytes: 8 K V per sequence and head; arithmetic hides under them.
//
// Story (K = V = 128, B 1 / 64 / 256, H 32; ms and share of the copy bandwidth):
// 1. 32 columns, 128 threads a block. Predicted: limited by copy bandwidth from 64 sequences on. Measured: 0.0097, 0.133
//    (84 %), 0.600 (74 %): pieces of 128 bytes of a row reach the memory from four blocks.
// 2. 128 columns, 256 threads where there are enough blocks: 64 KB in one piece. Predicted: 0.90 of the copy bandwidth. Measured:
//    0.0099, 0.128 (87 %), 0.49 to 0.52 (85 to 90 %). 106 registers, no spills.
// 3. Everything of a token read before the slot is known, beta and v with the rest: two waits for memory fewer one after the other.
//    Predicted 0.0085 for one sequence. Measured 0.0080, 0.107, 0.404. 128 registers, no spills.
// 4. 16 columns a block for few heads, K <= 128: twice the blocks, half the loads of a thread. Predicted 0.0076 for one sequence.
//    Measured: reports/cuda/evidence.md.

#include "exponential.cuh"
#include "gate.cuh"
#include "launch.hpp"
#include "rows.cuh"

namespace kdacheck::cuda {
namespace {

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

template <int K, int columns, int threads>
__global__ void __launch_bounds__(threads, K > 128         ? 3
                                           : columns == 32 ? 5
                                                           : 2) decode(const __grid_constant__ ForwardArguments args) {
  using Cut = Cut<K, columns, threads>;
  extern __shared__ __align__(16) unsigned char dynamic[];
  auto* sums = reinterpret_cast<Sums<columns>*>(dynamic); // [2][warps]
  auto* tokens = reinterpret_cast<Token<K>*>(sums + 2 * Cut::warps);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int slices = (args.V + columns - 1) / columns;
  const int slice = static_cast<int>(blockIdx.x % slices), head = static_cast<int>(blockIdx.x / slices % args.HV);
  const std::int64_t b = blockIdx.x / slices / args.HV;
  const std::int64_t slot = args.slot != nullptr ? args.slot[b] : b;
  const int count = static_cast<int>(args.T);
  TokenBits<K> bits{}; // read before the slot is known: the state's reads wait for that
  if (warp < count) bits = load_token<K>(args, b, warp, head, lane);
  const int quad = thread % Cut::quads, first_row = thread / Cut::quads, column = slice * columns + 4 * quad;
  const bool inside = column < args.V;
  ValueBits value_bits{};
  if (inside) value_bits = load_values(args, row_of(args.v, b, 0, head) + column);
  if (slot < 0 || slot >= args.N) return;
  float* state = args.final_state + (slot * args.HV + head) * args.K * args.V + column;
  float4 S[Cut::rows];
#pragma unroll
  for (int m = 0; m < Cut::rows; ++m) {
    const int c = first_row + Cut::rows_at_once * m;
    S[m] =
        inside && c < args.K ? __ldcs(reinterpret_cast<const float4*>(state + static_cast<std::int64_t>(c) * args.V)) : float4{0, 0, 0, 0};
  }
  for (int t = warp; t < count; t += threads / 32) {
    if (t > warp) bits = load_token<K>(args, b, t, head, lane);
    prepare<K>(tokens[t], args, bits, lane);
  }
  __syncthreads();
  for (int t = 0; t < count; ++t) {
    const Token<K>& token = tokens[t];
    const auto value = [&](int e) { return number_of(value_bits.word[e], args.qkv_format); };
    const float4 v{value(0), value(1), value(2), value(3)};
    if (inside && t + 1 < count) value_bits = load_values(args, row_of(args.v, b, t + 1, head) + column);
    float4 p{0, 0, 0, 0}, r{0, 0, 0, 0};
#pragma unroll
    for (int m = 0; m < Cut::rows; ++m) {
      const int c = first_row + Cut::rows_at_once * m;
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
    if (lane < Cut::quads) {
      *reinterpret_cast<float4*>(parity[warp].p + 4 * quad) = {partial[0], partial[1], partial[2], partial[3]};
      *reinterpret_cast<float4*>(parity[warp].r + 4 * quad) = {partial[4], partial[5], partial[6], partial[7]};
    }
    __syncthreads();
    p = r = {0, 0, 0, 0};
#pragma unroll
    for (int w = 0; w < Cut::warps; ++w) {
      const float4 x = *reinterpret_cast<const float4*>(parity[w].p + 4 * quad),
                   y = *reinterpret_cast<const float4*>(parity[w].r + 4 * quad);
      p.x += x.x, p.y += x.y, p.z += x.z, p.w += x.w;
      r.x += y.x, r.y += y.y, r.z += y.z, r.w += y.w;
    }
    const float beta = token.beta;
    const float4 u{beta * (v.x - p.x), beta * (v.y - p.y), beta * (v.z - p.z), beta * (v.w - p.w)};
#pragma unroll
    for (int m = 0; m < Cut::rows; ++m) {
      const float k = token.k[first_row + Cut::rows_at_once * m];
      S[m].x += k * u.x, S[m].y += k * u.y, S[m].z += k * u.z, S[m].w += k * u.w;
    }
    if (first_row == 0 && inside) {
      const std::int64_t place = row_of(args.o, b, t, head) + column;
      const float out[4] = {r.x + token.qk * u.x, r.y + token.qk * u.y, r.z + token.qk * u.z, r.w + token.qk * u.w};
#pragma unroll
      for (int e = 0; e < 4; ++e) store_number(args.o.data, place + e, out[e], args.output_format);
    }
  }
  if (!inside) return;
#pragma unroll
  for (int m = 0; m < Cut::rows; ++m)
    if (const int c = first_row + Cut::rows_at_once * m; c < args.K)
      __stcs(reinterpret_cast<float4*>(state + static_cast<std::int64_t>(c) * args.V), S[m]);
}

template <int K, int columns, int threads> cudaError_t launch(const ForwardArguments& args, std::int64_t sequences, cudaStream_t stream) {
  const std::int64_t slices = (args.V + columns - 1) / columns;
  const std::size_t shared = 2 * (threads / 32) * sizeof(Sums<columns>) + static_cast<std::size_t>(args.T) * sizeof(Token<K>);
  decode<K, columns, threads><<<static_cast<unsigned>(sequences * args.HV * slices), threads, shared, stream>>>(args);
  return cudaGetLastError();
}

/// Narrow blocks for few heads, which otherwise leave multiprocessors idle.
constexpr std::int64_t many_heads = 512;

} // namespace

cudaError_t launch_decode(const ForwardArguments& args, std::int64_t sequences, cudaStream_t stream) {
  const bool many = sequences * args.HV >= many_heads;
  if (args.K <= 64) return many ? launch<64, 128, 256>(args, sequences, stream) : launch<64, 32, 128>(args, sequences, stream);
  if (args.K <= 128) return many ? launch<128, 128, 256>(args, sequences, stream) : launch<128, 16, 128>(args, sequences, stream);
  return launch<256, 32, 128>(args, sequences, stream);
}

} // namespace kdacheck::cuda
