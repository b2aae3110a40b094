#pragma once
// KimiDeltaAttention: the layer around KDA, forward, backward, prefill and decode.
//
//   q, k = l2norm(swish(shortconv(x W_q))), ... W_k     v = swish(shortconv(x W_v))      l2norm(x) = x / sqrt(sum x^2 + 1e-6)
//   ln alpha = gate((x F_down) F_up)                    beta = sigmoid(x W_b), twice that with negative eigenvalues
//   o = KDA(q, k, v, alpha, beta), scale K^{-1/2}       by any kernel of the suite
//   z = RMSNorm_head(o) (.) sigmoid((x G_down) G_up + b_g)                     y = z W_o
//
// Sources: Kimi Linear technical report (arXiv 2510.26692), section 4; flash-linear-attention's KimiDeltaAttention, whose
// parameters these are under shorter names (nn.Linear stores W transposed): {q,k,v}_proj, {q,k,v}_conv1d, f_proj.0 and .1,
// A_log, dt_bias, b_proj, g_proj.0 and .1 with its bias, o_norm, o_proj. golden/parity holds what version 0.6.0 makes of such
// parameters. ln alpha is in nats per token, nothing else has a unit.

#include "../kernel.hpp"
#include "gating.hpp"

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

namespace kdacheck::modules {

/// Sizes and form of the layer.
struct KdaLayer {
  std::int64_t D = 1;                               ///< width of x and y
  std::int64_t H = 1, HV = 1;                       ///< query/key heads; value heads, a multiple of H
  std::int64_t K = 1, V = 1;                        ///< channels of a key, of a value
  std::int64_t conv_width = 4;                      ///< tokens that the short convolution sees, 1 to 16
  bool conv_bias = false;                           ///< the published layer has none
  std::int64_t gate_rank = 1, output_gate_rank = 1; ///< of F and G; both V in the published layer
  GateForm gate = GateForm::softplus;               ///< softplus, bounded or sigmoid
  float lower_bound = -5.0f;                        ///< of the bounded gate
  bool negative_eigenvalues = false;                ///< beta in (0,2)
  float norm_epsilon = 1e-5f;                       ///< under the root of RMSNorm
  float scale() const;                              ///< K^{-1/2}
  Gating gating() const;                            ///< the gate's own module
  bool operator==(const KdaLayer&) const = default;
};

/// Row-major; y = x W for every matrix. Gradients have the same form.
struct KdaLayerParameters {
  std::vector<float> q_proj, k_proj, v_proj;                ///< [D,H K], [D,H K], [D,HV V]
  std::vector<float> q_conv, k_conv, v_conv;                ///< [channels,conv_width], the last column meets the current token
  std::vector<float> q_conv_bias, k_conv_bias, v_conv_bias; ///< [channels], or empty
  std::vector<float> f_down, f_up;                          ///< [D,gate_rank], [gate_rank,HV K]
  std::vector<float> A_log, dt_bias;                        ///< [HV], [HV K]; empty for the sigmoid gate
  std::vector<float> b_proj;                                ///< [D,HV]
  std::vector<float> g_down, g_up, g_bias;                  ///< [D,output_gate_rank], [output_gate_rank,HV V], [HV V]
  std::vector<float> o_norm;                                ///< [V]
  std::vector<float> o_proj;                                ///< [HV V,D]
};

/// Calls visit(name, shape, tensor) for every tensor that the layer has, always in the same order.
void for_each_tensor(const KdaLayer&, KdaLayerParameters&,
                     const std::function<void(std::string_view, std::span<const std::int64_t>, std::vector<float>&)>& visit);

/// Projections uniform by Glorot's rule, convolutions uniform in +-conv_width^{-1/2}, A_log = ln of a uniform number in
/// [1,16), o_norm one, biases zero. Element i of a tensor follows from (seed, tensor, i) by Philox4x32-10: the same bits on
/// every machine (A_log through its C library's logarithm). Throws std::invalid_argument for sizes out of range.
KdaLayerParameters initial_parameters(const KdaLayer&, std::uint64_t seed);

/// B sequences of T tokens: x [B,T,D], finite. Packed: B = 1 and cu_seqlens [N+1] from 0 to T. Padded: mask [B,T], 0 for
/// tokens that are not there, on either side or in between: they have no influence and y is 0 in their rows.
struct KdaLayerInput {
  std::int64_t B = 1, T = 0;
  std::span<const float> x;
  std::span<const std::int64_t> cu_seqlens{};
  std::span<const std::uint8_t> mask{};
};

/// What decoding goes on from; N sequences. Empty vectors count as zero.
struct KdaLayerState {
  std::vector<float> q_conv, k_conv, v_conv; ///< [N,conv_width - 1,channels]: last inputs of the convolutions, oldest first
  std::vector<float> memory;                 ///< [N,HV,K,V]
};

struct KdaLayerOutput {
  std::vector<float> y;      ///< [B,T,D]
  KdaLayerState final_state; ///< a sequence without tokens keeps its own
};

/// The layer in fp32 around a kernel whose contract allows KDA with ln alpha and beta as numbers: prefill with many tokens,
/// decode with one, from a state that a call left. With a kernel that repeats bit for bit whatever stands beside or behind a
/// token (prefix, batch and repeat bitwise), so does the layer. Throws std::invalid_argument, with a sentence that names the
/// tensor, for sizes that do not fit, NaN or infinity in x; Refused where the kernel refuses.
KdaLayerOutput kda_layer(const KdaLayer&, const KdaLayerParameters&, const Kernel&, const KdaLayerInput&, const KdaLayerState& = {});

/// What a loss sends back; empty: zero.
struct KdaLayerCotangents {
  std::span<const float> y;  ///< [B,T,D]
  KdaLayerState final_state; ///< in the shapes of the state
};

struct KdaLayerGradients {
  std::vector<float> x; ///< [B,T,D]
  KdaLayerParameters parameters;
  KdaLayerState state; ///< of the state that was given; tensors that were empty stay so
};

/// Gradients of `kda_layer`, whose intermediate tensors are computed again. Sums over tokens run in fp32 within matrix
/// products and in fp64 elsewhere, always in the same order. Throws as `kda_layer` does, and std::invalid_argument for a
/// kernel without a backward pass.
KdaLayerGradients kda_layer_backward(const KdaLayer&, const KdaLayerParameters&, const Kernel&, const KdaLayerInput&, const KdaLayerState&,
                                     const KdaLayerCotangents&);

} // namespace kdacheck::modules
