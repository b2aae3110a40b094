#pragma once
// What a producer reads from its bench: norms of rows, and the gate of a pass of 64 channels.

#include "../device/gate.cuh"
#include "../device/rows.cuh"
#include "chunk_layout.cuh"

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
#pragma unroll(pieces == mixed_terms ? 1 : 2) // in straight lines a sixth of a producer's code, and code that does not fit is waited for
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

/// Log2 decays of this lane's channels from what is stored, of `count` tokens from the chunk's `first` on; zero past the end of the
/// sequence.
template <int count>
__device__ __forceinline__ void decays_of(Pair (&g)[count], const ForwardArguments& args, HeadGate head, Pair bias, int tokens,
                                          int first = 0) {
  if (args.gate == Gate::log_decay) {
#pragma unroll
    for (int i = 0; i < count; ++i) g[i] = {g[i].x * log2_e, g[i].y * log2_e};
  } else if (args.gate == Gate::bounded) {
    const float bound = args.lower_bound * log2_e;
#pragma unroll
    for (int i = 0; i < count; ++i)
      g[i] = {log2_decay_bounded(g[i].x, bias.x, head.growth_log2, bound), log2_decay_bounded(g[i].y, bias.y, head.growth_log2, bound)};
  } else {
#pragma unroll
    for (int i = 0; i < count; ++i)
      g[i] = {log_decay(args.gate, g[i].x, bias.x, head.growth, 0) * log2_e, log_decay(args.gate, g[i].y, bias.y, head.growth, 0) * log2_e};
  }
  if (tokens < first + count) {
#pragma unroll
    for (int i = 0; i < count; ++i)
      if (first + i >= tokens) g[i] = {0, 0};
  }
}

/// The rows of g lie at `raw_g` on the bench.
template <int K, int raw_g, bool narrow = false, int count>
__device__ __forceinline__ void read_gate(Pair (&g)[count], const ForwardArguments& args, Address bench, HeadGate head, Address biases,
                                          int pass, int tokens, unsigned lane, int first = 0) {
  const unsigned channel = 64 * pass + 2 * lane;
  if (args.gate == Gate::absent || (narrow && static_cast<int>(channel) >= args.K)) {
#pragma unroll
    for (int i = 0; i < count; ++i) g[i] = {0, 0};
    return;
  }
  if (args.gate_format == Stored::fp32) {
#pragma unroll
    for (int i = 0; i < count; ++i) g[i] = load_shared_pair(bench + raw_g + 4 * ((first + i) * K + channel));
  } else {
    const bool bf16 = args.gate_format == Stored::bf16;
#pragma unroll
    for (int i = 0; i < count; ++i) {
      const std::uint32_t word = load_shared_word(bench + raw_g + 2 * ((first + i) * K + channel));
      g[i] = bf16 ? unpack_bf16(word) : unpack_fp16(word);
    }
  }
  decays_of(g, args, head, load_shared_pair(biases + 4 * channel), tokens, first);
}

/// Where a pass of 64 channels stands, and where its rows go.
template <class Place> struct Pass {
  Address bench;
  Place stage;
  int number;
  unsigned lane;
};

} // namespace kdacheck::cuda
