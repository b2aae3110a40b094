// Padded and batched calls are packed first: the stages know nothing but packed tokens, so that a token that is not there
// cannot reach a state.

#include "kda_layer.hpp"

#include "gate_lanes.hpp"
#include "kda_layer_stages.hpp"
#include "linear.hpp"
#include "packed_rows.hpp"
#include "partial_lanes.hpp"

#include <algorithm>
#include <cmath>

namespace kdacheck::modules {
namespace {

/// beta of logits in place.
void betas(const KdaLayer& layer, std::vector<float>& logits) {
  const Lanes factor = cpu::broadcast(layer.negative_eigenvalues ? 2.0f : 1.0f);
  for (std::size_t at = 0; at < logits.size(); at += cpu::lane_count) {
    const auto width = static_cast<std::int64_t>(logits.size() - at);
    store_part(logits.data() + at, factor * Logistic(load_part(logits.data() + at, width)).rising, width);
  }
}

std::vector<float> log_decays(const KdaLayer& layer, const KdaLayerParameters& p, const PackedTokens& tokens) {
  std::vector<float> log_decay(static_cast<std::size_t>(tokens.rows() * layer.HV * layer.K)), alpha(log_decay.size());
  gates(layer.gating(), gate_parameters(p), {.B = 1, .T = tokens.rows(), .x = tokens.x}, {.alpha = alpha, .log_decay = log_decay});
  return log_decay;
}

} // namespace

float KdaLayer::scale() const { return static_cast<float>(1 / std::sqrt(static_cast<double>(K))); }

Gating KdaLayer::gating() const {
  return {.D = D, .rank = gate_rank, .H = HV, .K = K, .form = gate, .per_head = false, .lower_bound = lower_bound};
}

ShortConvolution convolution_of(const KdaLayer& layer, std::int64_t channels, std::span<const float> weight, std::span<const float> bias) {
  return {.channels = channels, .width = layer.conv_width, .weight = weight, .bias = bias};
}
GatedNorm norm_of(const KdaLayer& layer, const KdaLayerParameters& p) {
  return {.heads = layer.HV, .V = layer.V, .epsilon = layer.norm_epsilon, .weight = p.o_norm};
}
GatingParameters gate_parameters(const KdaLayerParameters& p) {
  return {.down = p.f_down, .up = p.f_up, .A_log = p.A_log, .dt_bias = p.dt_bias};
}

CoreTokens core_tokens(const KdaLayer& layer, const PackedTokens& tokens, const KdaLayerState& state, const LayerTrace& trace) {
  return {.H = layer.H,
          .HV = layer.HV,
          .K = layer.K,
          .V = layer.V,
          .scale = layer.scale(),
          .cu_seqlens = tokens.cu_seqlens,
          .q = trace.q.y,
          .k = trace.k.y,
          .v = trace.v.y,
          .log_decay = trace.log_decay,
          .beta = trace.beta,
          .state = state.memory};
}

LayerTrace trace_layer(const LayerStages& stages, const KdaLayer& layer, const KdaLayerParameters& p, const Kernel& kernel,
                       const PackedTokens& tokens, const KdaLayerState& state) {
  const std::int64_t R = tokens.rows(), D = layer.D, keys = layer.H * layer.K, values = layer.HV * layer.V;
  LayerTrace trace;
  trace.q_in = linear({D, keys, p.q_proj}, R, tokens.x);
  trace.k_in = linear({D, keys, p.k_proj}, R, tokens.x);
  trace.v_in = linear({D, values, p.v_proj}, R, tokens.x);
  trace.q = stages.convolve(convolution_of(layer, keys, p.q_conv, p.q_conv_bias), tokens.cu_seqlens, trace.q_in, state.q_conv);
  trace.k = stages.convolve(convolution_of(layer, keys, p.k_conv, p.k_conv_bias), tokens.cu_seqlens, trace.k_in, state.k_conv);
  trace.v = stages.convolve(convolution_of(layer, values, p.v_conv, p.v_conv_bias), tokens.cu_seqlens, trace.v_in, state.v_conv);
  trace.log_decay = log_decays(layer, p, tokens);
  trace.beta = linear({D, layer.HV, p.b_proj}, R, tokens.x);
  betas(layer, trace.beta);
  trace.gate_hidden = linear({D, layer.output_gate_rank, p.g_down}, R, tokens.x);
  trace.gate = linear({layer.output_gate_rank, values, p.g_up}, R, trace.gate_hidden);
  for (std::int64_t t = 0; t < R; ++t)
    for (std::int64_t j = 0; j < values; ++j) trace.gate[static_cast<std::size_t>(t * values + j)] += p.g_bias[static_cast<std::size_t>(j)];
  trace.core = core_forward(kernel, core_tokens(layer, tokens, state, trace));
  trace.z = stages.gated_norm(norm_of(layer, p), R, trace.core.o, trace.gate);
  trace.y = linear({values, D, p.o_proj}, R, trace.z);
  return trace;
}

KdaLayerOutput run_layer(const LayerStages& stages, const KdaLayer& layer, const KdaLayerParameters& p, const Kernel& kernel,
                         const KdaLayerInput& input, const KdaLayerState& state) {
  check_layer_call(layer, p, input, state);
  const PackedRows packed = packed_rows(input.B, input.T, input.cu_seqlens, input.mask);
  const std::vector<float> gathered = packed.gathered(input.x, layer.D);
  LayerTrace trace =
      trace_layer(stages, layer, p, kernel, {packed.cu_seqlens, packed.all ? input.x : std::span<const float>(gathered)}, state);
  return {packed.all ? std::move(trace.y) : packed.scattered(trace.y, layer.D),
          {std::move(trace.q.state), std::move(trace.k.state), std::move(trace.v.state), std::move(trace.core.state)}};
}

KdaLayerOutput kda_layer(const KdaLayer& layer, const KdaLayerParameters& p, const Kernel& kernel, const KdaLayerInput& input,
                         const KdaLayerState& state) {
  return run_layer({}, layer, p, kernel, input, state);
}

} // namespace kdacheck::modules
