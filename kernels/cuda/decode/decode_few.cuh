#pragma once
// Decode where heads are few: what counts is how long a block takes, and with one token a block's code runs once.
//
// A thread a channel: a block of K threads reads q, k and the gate one number each, so that the code for a channel stands there once, and
// holds 16 value columns of the state, 16 bytes of K/4 rows each. Norms are not waited for: they are factors of what the state gives,
//   p = S^T (alpha k) |k|^-1,   u = beta (v - p),   S = alpha S + (k |k|^-1) u^T,   o = scale |q|^-1 (S^T (alpha q) + (q.k) |k|^-1 u),
// and their sums pass the same barrier as the channels. Two barriers a token. One token and several run the same code: a token's bits do
// not hang on how a sequence is cut into calls.

#include "../device/exponential.cuh"
#include "../device/gate.cuh"

namespace kdacheck::cuda {

/// What the kernel takes of a call, in as few lines of the constant bank as can be.
struct FewArguments {
  float* state;
  const std::int32_t* slot;
  std::int64_t slots;
  const float *A_log, *dt_bias;
  View q, k, g, v, beta, o;
  int T, HV, group, K, V;
  Gate gate;
  Beta beta_form;
  Stored qkv_format, gate_format, beta_format, output_format;
  bool l2norm;
  float lower_bound, scale;
};

inline FewArguments few_arguments(const ForwardArguments& args) {
  return {.state = args.final_state,
          .slot = args.slot,
          .slots = args.N,
          .A_log = args.A_log,
          .dt_bias = args.dt_bias,
          .q = args.q,
          .k = args.k,
          .g = args.g,
          .v = args.v,
          .beta = args.beta,
          .o = args.o,
          .T = static_cast<int>(args.T),
          .HV = args.HV,
          .group = args.HV / args.H,
          .K = args.K,
          .V = args.V,
          .gate = args.gate,
          .beta_form = args.beta_form,
          .qkv_format = args.qkv_format,
          .gate_format = args.gate_format,
          .beta_format = args.beta_format,
          .output_format = args.output_format,
          .l2norm = args.l2norm,
          .lower_bound = args.lower_bound,
          .scale = args.scale};
}

/// 1/sqrt(x), to an ulp.
__device__ __forceinline__ float root_reciprocal(float x) {
  const float y = reciprocal_root(x), half = 0.5f * y;
  return fmaf(half, fmaf(-x * y, y, 1.0f), y);
}

/// Lanes that differ in `mask`, `2 mask`, .. 16 each have `count` sums; a lane gets the whole of one of them, that of the number made of
/// those bits of its own, the lowest bit first.
template <int mask, int count> __device__ __forceinline__ void share_sums(float (&x)[count], unsigned lane) {
  const bool upper = (lane & mask) != 0;
#pragma unroll
  for (int i = 0; i < count / 2; ++i) {
    const float low = x[2 * i], high = x[2 * i + 1];
    x[i] = (upper ? high : low) + shuffle_xor(upper ? low : high, mask);
  }
  if constexpr (count > 2) {
    float rest[count / 2];
#pragma unroll
    for (int i = 0; i < count / 2; ++i) rest[i] = x[i];
    share_sums<2 * mask>(rest, lane);
    x[0] = rest[0];
  }
}

/// Shared memory of a block: (alpha, k, q, 0) of every channel; (q.q, k.k, q.k, 0) of every warp's channels; v of this token and of the
/// next; sums of p and of r over a warp's rows, [2][columns][warps].
template <int K, int columns> struct FewLayout {
  static constexpr int warps = K / 32, channels = 0, norms = 16 * K, values = norms + 16 * warps, sums = values + 8 * columns,
                       bytes = sums + 8 * columns * warps;
};

/// Four numbers as they are stored at once.
struct FourWords {
  std::uint32_t word[4];
  __device__ __forceinline__ FourWords(float x, float y, float z, float w)
      : word{float_as_bits(x), float_as_bits(y), float_as_bits(z), float_as_bits(w)} {}
};

/// What a thread reads of a token, not yet waited for: a channel of q, k and the gate, a column of v.
struct FewBits {
  std::uint32_t q, k, gate, beta, v;
};
__device__ __forceinline__ FewBits load_few(const FewArguments& args, std::int64_t b, std::int64_t t, int head, int c, int column,
                                            bool writes) {
  const auto at = [&](const View& view, int of_head) { return b * view.batch + t * view.token + of_head * view.head; };
  const int head_q = head / args.group;
  const bool channel = c < args.K;
  return {.q = channel ? load_bits(args.q.data, at(args.q, head_q) + c, args.qkv_format) : 0,
          .k = channel ? load_bits(args.k.data, at(args.k, head_q) + c, args.qkv_format) : 0,
          .gate = channel && args.gate != Gate::absent ? load_bits(args.g.data, at(args.g, head) + c, args.gate_format) : 0,
          .beta = load_bits(args.beta.data, at(args.beta, head), args.beta_format),
          .v = writes ? load_bits(args.v.data, at(args.v, head) + column, args.qkv_format) : 0};
}

/// One sequence and head (z, y of the grid), value columns from 16 x on. Room for K channels, as many threads.
template <int K, int columns> __device__ __forceinline__ void decode_few_block(const FewArguments& args) {
  constexpr int quads = columns / 4, rows_at_once = K / quads, rows = K / rows_at_once, warps = K / 32;
  static_assert(columns == 16, "eight sums of a quad are dealt out to the eight lanes that have it");
  const BlockPlace block = block_place();
  const int head = static_cast<int>(block.y);
  const std::int64_t b = block.z;
  const unsigned thread = thread_index(), lane = thread % 32, warp = thread / 32;
  const int c = static_cast<int>(thread), quad = static_cast<int>(thread % quads), first_row = static_cast<int>(thread / quads);
  const int first_column = columns * static_cast<int>(block.x), column = first_column + 4 * quad;
  const std::int64_t slot = args.slot != nullptr ? args.slot[b] : b;
  // Nothing is waited for before all is asked for.
  const bool channel = c < args.K, writes = c < columns && first_column + c < args.V;
  FewBits bits = load_few(args, b, 0, head, c, first_column + c, writes);
  const float A_log = args.A_log != nullptr ? args.A_log[head] : 0.0f;
  const float bias = channel && args.dt_bias != nullptr ? args.dt_bias[static_cast<std::int64_t>(head) * args.K + c] : 0.0f;
  if (slot < 0 || slot >= args.slots) return;
  float* state = args.state + ((slot * args.HV + head) * args.K + first_row) * args.V + column;
  const auto present = [&](int m) { return column < args.V && first_row + rows_at_once * m < args.K; };
  float S[rows][4];
#pragma unroll
  for (int m = 0; m < rows; ++m) {
    std::uint32_t words[4]{};
    if (present(m)) load_global_passing(words, state + static_cast<std::int64_t>(rows_at_once * m) * args.V);
#pragma unroll
    for (int e = 0; e < 4; ++e) S[m][e] = bits_as_float(words[e]);
  }

  using Layout = FewLayout<K, columns>;
  const Address base = shared_base();
#pragma unroll 1
  for (int t = 0;;) {
    const float q = number_of(bits.q, args.qkv_format), k = number_of(bits.k, args.qkv_format);
    const float log_alpha = log_decay(args.gate, number_of(bits.gate, args.gate_format), bias, expf(A_log), args.lower_bound);
    const float alpha = channel ? decay_exponential(log_alpha) : 0.0f; // a gate whose rate overflows makes NaN of what is not there
    store_shared(base + Layout::channels + 16 * thread, FourWords(alpha, k, q, 0).word);
    const unsigned values = base + Layout::values + 4 * columns * static_cast<unsigned>(t % 2); // the last token's may be read still
    if (c < columns) store_shared(values + 4 * thread, number_of(bits.v, args.qkv_format));
    const float beta = step_size(args.beta_form, number_of(bits.beta, args.beta_format));
    {
      float qq = q * q, kk = k * k, qk = q * k;
#pragma unroll
      for (int mask = 16; mask > 0; mask /= 2) qq += shuffle_xor(qq, mask), kk += shuffle_xor(kk, mask), qk += shuffle_xor(qk, mask);
      if (lane == 0) store_shared(base + Layout::norms + 16 * warp, FourWords(qq, kk, qk, 0).word);
    }
    const bool last = t + 1 == args.T;
    if (!last) bits = load_few(args, b, t + 1, head, c, first_column + c, writes);
    sync_block();
    float x[8] = {}, key[rows]; // p and r of four columns
#pragma unroll
    for (int m = 0; m < rows; ++m) {
      float row[4];
      load_shared_quad(row, base + Layout::channels + 16 * static_cast<unsigned>(first_row + rows_at_once * m));
      key[m] = row[1];
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        S[m][e] *= row[0];
        x[e] += row[1] * S[m][e];
        x[4 + e] += row[2] * S[m][e];
      }
    }
    share_sums<quads>(x, lane);
    // [which of p and r][column of 16][warp]
    const unsigned which = lane / quads, own = which / 4 * columns + 4 * static_cast<unsigned>(quad) + which % 4;
    store_shared(base + Layout::sums + 4 * (warps * own + warp), x[0]);
    float qq = 0, kk = 0, qk = 0;
#pragma unroll
    for (int w = 0; w < warps; ++w) {
      float part[4];
      load_shared_quad(part, base + Layout::norms + 16 * static_cast<unsigned>(w));
      qq += part[0], kk += part[1], qk += part[2];
    }
    const float norm_k = args.l2norm ? root_reciprocal(kk + 1e-6f) : 1.0f;
    sync_block();
    const auto whole = [&](unsigned number) { // over the warps
      float parts[4];
      if constexpr (warps == 4) {
        load_shared_quad(parts, base + Layout::sums + 16 * number);
        return (parts[0] + parts[1]) + (parts[2] + parts[3]);
      } else {
        const Pair pair = load_shared_pair(base + Layout::sums + 8 * number);
        return pair.x + pair.y;
      }
    };
    float u[4], v[4];
    load_shared_quad(v, values + 16 * static_cast<unsigned>(quad));
#pragma unroll
    for (int e = 0; e < 4; ++e) u[e] = beta * (v[e] - norm_k * whole(4 * static_cast<unsigned>(quad) + static_cast<unsigned>(e)));
#pragma unroll
    for (int m = 0; m < rows; ++m) {
      const float scaled = norm_k * key[m];
#pragma unroll
      for (int e = 0; e < 4; ++e) S[m][e] = fmaf(scaled, u[e], S[m][e]);
      if (last && present(m))
        store_global_passing(state + static_cast<std::int64_t>(rows_at_once * m) * args.V,
                             FourWords(S[m][0], S[m][1], S[m][2], S[m][3]).word);
    }
    if (writes) {
      const float norm_q = args.l2norm ? args.scale * root_reciprocal(qq + 1e-6f) : args.scale;
      const float own_u = beta * (load_shared_float(values + 4 * thread) - norm_k * whole(thread));
      const float out = norm_q * (whole(columns + thread) + qk * norm_k * own_u);
      store_number(args.o.data, b * args.o.batch + t * args.o.token + head * args.o.head + first_column + c, out, args.output_format);
    }
    if (last) return;
    ++t;
  }
}

} // namespace kdacheck::cuda
