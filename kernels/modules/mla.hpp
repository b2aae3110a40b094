#pragma once
// Multi-head latent attention (MLA) without position encoding: forward, backward, prefill and decode.
//
//   q = x W_q, per head K + K_shared channels                                c = RMSNorm(x W_down), s = x W_s
//   k_h = [(c W_up)_h,K, s], v_h = (c W_up)_h,V                                scale (K + K_shared)^{-1/2}
//   o_h = causal softmax attention of q_h, k_h, v_h                          y = o W_o
// Of a token only c and s are kept, for all heads together: rank + K_shared numbers.
//
// Sources: DeepSeek-V2 (arXiv 2405.04434), section 2.1; Kimi Linear technical report (arXiv 2510.26692), section 4, which leaves
// out the rotation; there s are the channels that others rotate. flash-linear-attention's MultiheadLatentAttention has these
// parameters (nn.Linear stores W transposed) as q_proj, kv_proj.0 (kv_down), kv_proj.1 (kv_norm), kv_proj.2 (kv_up),
// k_rope (k_shared), o_proj; channels of a head stand in the same order. Memory is in bytes, nothing else has a unit.

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

namespace kdacheck::modules {

/// Sizes of the layer. Published: H 32, K 128, K_shared 64, V 128, rank 512.
struct Mla {
  std::int64_t D = 1;        ///< width of x and y
  std::int64_t H = 1;        ///< heads
  std::int64_t K = 1, V = 1; ///< a head's own channels of key and value
  std::int64_t K_shared = 0; ///< channels of the key that all heads share, taken from x without the latent
  std::int64_t rank = 1;     ///< of the latent
  float norm_epsilon = 1e-5f;
  bool absorb = true; ///< see `mla`
  float scale() const;
  std::int64_t cached() const { return rank + K_shared; } ///< numbers per token
  bool operator==(const Mla&) const = default;
};

/// Row-major; y = x W for every matrix. Gradients have the same form.
struct MlaParameters {
  std::vector<float> q_proj;   ///< [D,H (K + K_shared)]
  std::vector<float> kv_down;  ///< [D,rank]
  std::vector<float> kv_norm;  ///< [rank]
  std::vector<float> kv_up;    ///< [rank,H (K + V)], a head's key before its value
  std::vector<float> k_shared; ///< [D,K_shared]
  std::vector<float> o_proj;   ///< [H V,D]
};

/// Calls visit(name, shape, tensor) for every tensor of the layer, always in the same order; none for k_shared without K_shared.
void for_each_tensor(const Mla&, MlaParameters&,
                     const std::function<void(std::string_view, std::span<const std::int64_t>, std::vector<float>&)>& visit);

/// Projections uniform by Glorot's rule, kv_norm one; bits as `initial_parameters` of the KDA layer. Throws
/// std::invalid_argument for sizes out of range.
MlaParameters initial_parameters(const Mla&, std::uint64_t seed);

/// What decoding goes on from: c and s of every token so far, [tokens,rank + K_shared] for each of N sequences.
struct MlaCache {
  std::vector<std::vector<float>> rows; ///< empty: N sequences without tokens
  std::int64_t tokens(const Mla& mla, std::int64_t n) const;
  std::int64_t bytes() const; ///< that its rows have allocated; up to an eighth and 64 tokens of it may be yet unused
};

/// B sequences of T tokens: x [B,T,D], finite. Packed: B = 1 and cu_seqlens [N+1] from 0 to T. Padded: mask [B,T], 0 for
/// tokens that are not there: they have no influence and y is 0 in their rows.
struct MlaInput {
  std::int64_t B = 1, T = 0;
  std::span<const float> x;
  std::span<const std::int64_t> cu_seqlens{};
  std::span<const std::uint8_t> mask{};
};

/// y [B,T,D] in fp32; the tokens are appended to the cache. A sequence with few tokens in the call (decoding) attends in the
/// latent space, W_up absorbed into queries and outputs: no key or value of an earlier token is made again. This is the same in
/// exact arithmetic; with absorb = false prefill and decode give the same bits. Packed and separate calls always do. Throws
/// std::invalid_argument, with a sentence that names the tensor and the cache unchanged, for sizes that do not fit, NaN or
/// infinity in x.
std::vector<float> mla(const Mla&, const MlaParameters&, const MlaInput&, MlaCache&);

struct MlaCotangents {
  std::span<const float> y;              ///< [B,T,D]; empty: zero
  std::vector<std::vector<float>> cache; ///< of the cache behind the call, in its shapes; empty: zero
};

struct MlaGradients {
  std::vector<float> x; ///< [B,T,D]
  MlaParameters parameters;
  std::vector<std::vector<float>> cache; ///< of the cache before the call
};

/// Gradients of `mla` called with that cache, which stays as it is. Attention weights are computed again. Throws as `mla` does.
MlaGradients mla_backward(const Mla&, const MlaParameters&, const MlaInput&, const MlaCache& before, const MlaCotangents&);

} // namespace kdacheck::modules
