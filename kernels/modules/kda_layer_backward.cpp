#include "kda_layer_stages.hpp"

#include "gate_lanes.hpp"
#include "linear.hpp"
#include "packed_rows.hpp"
#include "partial_lanes.hpp"

#include <fmt/core.h>
#include <stdexcept>

namespace kdacheck::modules {
namespace {

/// d beta to d logit in place, from beta itself: factor sigmoid (1 - sigmoid), where 1 - sigmoid is taken of the logit.
void betas_backward(const KdaLayer& layer, std::span<const float> logits, std::vector<float>& d) {
  const Lanes factor = cpu::broadcast(layer.negative_eigenvalues ? 2.0f : 1.0f);
  for (std::size_t at = 0; at < d.size(); at += cpu::lane_count) {
    const auto width = static_cast<std::int64_t>(d.size() - at);
    const Logistic logistic(load_part(logits.data() + at, width));
    store_part(d.data() + at, load_part(d.data() + at, width) * (factor * (logistic.rising * logistic.falling)), width);
  }
}

std::vector<float> column_sums(std::span<const float> values, std::int64_t columns) {
  std::vector<double> sums(static_cast<std::size_t>(columns), 0.0);
  for (std::size_t i = 0; i < values.size(); ++i) sums[i % sums.size()] += static_cast<double>(values[i]);
  return {sums.begin(), sums.end()};
}

/// A projection's weight gradient; what it sends to x is added.
std::vector<float> project_back(const Linear& l, const PackedTokens& tokens, std::span<const float> d_y, std::vector<float>& d_x) {
  add_linear_input_gradient(l, tokens.rows(), d_y, d_x);
  return linear_weight_gradient(l, tokens.rows(), tokens.x, d_y);
}

void check_cotangent(const char* name, std::span<const float> d, std::int64_t wanted) {
  if (!d.empty() && static_cast<std::int64_t>(d.size()) != wanted)
    throw std::invalid_argument(fmt::format("layer: the cotangent of {} has {} numbers, not {}", name, d.size(), wanted));
}

} // namespace

KdaLayerGradients trace_layer_backward(const LayerStages& stages, const KdaLayer& layer, const KdaLayerParameters& p, const Kernel& kernel,
                                       const PackedTokens& tokens, const KdaLayerState& state, const LayerTrace& trace,
                                       std::span<const float> d_y, const KdaLayerState& d_final) {
  const std::int64_t R = tokens.rows(), D = layer.D, keys = layer.H * layer.K, values = layer.HV * layer.V;
  KdaLayerGradients d;
  KdaLayerParameters& dp = d.parameters;
  d.x.assign(static_cast<std::size_t>(R * D), 0.0f);

  const Linear o_proj{values, D, p.o_proj};
  dp.o_proj = linear_weight_gradient(o_proj, R, trace.z, d_y);
  std::vector<float> d_z(trace.z.size(), 0.0f);
  add_linear_input_gradient(o_proj, R, d_y, d_z);
  GatedNormGradients d_norm = stages.gated_norm_backward(norm_of(layer, p), R, trace.core.o, trace.gate, d_z);
  dp.o_norm = std::move(d_norm.weight);

  const Linear g_up{layer.output_gate_rank, values, p.g_up};
  dp.g_bias = column_sums(d_norm.gate, values);
  dp.g_up = linear_weight_gradient(g_up, R, trace.gate_hidden, d_norm.gate);
  std::vector<float> d_hidden(trace.gate_hidden.size(), 0.0f);
  add_linear_input_gradient(g_up, R, d_norm.gate, d_hidden);
  dp.g_down = project_back({D, layer.output_gate_rank, p.g_down}, tokens, d_hidden, d.x);

  CoreGradients core = core_backward(kernel, core_tokens(layer, tokens, state, trace), d_norm.o, d_final.memory);
  d.state.memory = std::move(core.state);

  betas_backward(layer, linear({D, layer.HV, p.b_proj}, R, tokens.x), core.beta);
  dp.b_proj = project_back({D, layer.HV, p.b_proj}, tokens, core.beta, d.x);

  GatingGradients d_gate =
      gates_backward(layer.gating(), gate_parameters(p), {.B = 1, .T = R, .x = tokens.x}, {.alpha = {}, .log_decay = core.log_decay});
  for (std::size_t i = 0; i < d.x.size(); ++i) d.x[i] += d_gate.x[i];
  dp.f_down = std::move(d_gate.down), dp.f_up = std::move(d_gate.up);
  dp.A_log = std::move(d_gate.A_log), dp.dt_bias = std::move(d_gate.dt_bias);

  const auto branch = [&](std::int64_t channels, const std::vector<float>& conv, const std::vector<float>& bias,
                          const std::vector<float>& proj, const std::vector<float>& in, const std::vector<float>& before,
                          const Convolved& convolved, const std::vector<float>& arriving, const std::vector<float>& d_after,
                          std::vector<float>& d_conv, std::vector<float>& d_bias, std::vector<float>& d_proj,
                          std::vector<float>& d_before) {
    ConvolutionGradients back = stages.convolve_backward(convolution_of(layer, channels, conv, bias), tokens.cu_seqlens, in, before,
                                                         convolved.a, arriving, d_after);
    d_conv = std::move(back.weight), d_bias = std::move(back.bias), d_before = std::move(back.state);
    d_proj = project_back({D, channels, proj}, tokens, back.u, d.x);
  };
  branch(keys, p.q_conv, p.q_conv_bias, p.q_proj, trace.q_in, state.q_conv, trace.q, core.q, d_final.q_conv, dp.q_conv, dp.q_conv_bias,
         dp.q_proj, d.state.q_conv);
  branch(keys, p.k_conv, p.k_conv_bias, p.k_proj, trace.k_in, state.k_conv, trace.k, core.k, d_final.k_conv, dp.k_conv, dp.k_conv_bias,
         dp.k_proj, d.state.k_conv);
  branch(values, p.v_conv, p.v_conv_bias, p.v_proj, trace.v_in, state.v_conv, trace.v, core.v, d_final.v_conv, dp.v_conv, dp.v_conv_bias,
         dp.v_proj, d.state.v_conv);
  return d;
}

KdaLayerGradients run_layer_backward(const LayerStages& stages, const KdaLayer& layer, const KdaLayerParameters& p, const Kernel& kernel,
                                     const KdaLayerInput& input, const KdaLayerState& state, const KdaLayerCotangents& cotangents) {
  check_layer_call(layer, p, input, state);
  const PackedRows packed = packed_rows(input.B, input.T, input.cu_seqlens, input.mask);
  const auto N = static_cast<std::int64_t>(packed.cu_seqlens.size()) - 1;
  const std::int64_t keys = layer.H * layer.K, values = layer.HV * layer.V, history = layer.conv_width - 1;
  check_cotangent("y", cotangents.y, input.B * input.T * layer.D);
  check_cotangent("q_conv", cotangents.final_state.q_conv, N * history * keys);
  check_cotangent("k_conv", cotangents.final_state.k_conv, N * history * keys);
  check_cotangent("v_conv", cotangents.final_state.v_conv, N * history * values);
  check_cotangent("memory", cotangents.final_state.memory, N * values * layer.K);
  const std::vector<float> gathered = packed.gathered(input.x, layer.D);
  const PackedTokens tokens{packed.cu_seqlens, packed.all ? input.x : std::span<const float>(gathered)};
  std::vector<float> d_y = packed.gathered(cotangents.y, cotangents.y.empty() ? 0 : layer.D);
  if (cotangents.y.empty()) d_y.assign(static_cast<std::size_t>(tokens.rows() * layer.D), 0.0f);
  const bool as_given = packed.all && !cotangents.y.empty();
  const LayerTrace trace = trace_layer(stages, layer, p, kernel, tokens, state);
  KdaLayerGradients d = trace_layer_backward(stages, layer, p, kernel, tokens, state, trace,
                                             as_given ? cotangents.y : std::span<const float>(d_y), cotangents.final_state);
  d.x = packed.scattered(d.x, layer.D);
  return d;
}

KdaLayerGradients kda_layer_backward(const KdaLayer& layer, const KdaLayerParameters& p, const Kernel& kernel, const KdaLayerInput& input,
                                     const KdaLayerState& state, const KdaLayerCotangents& cotangents) {
  return run_layer_backward({}, layer, p, kernel, input, state, cotangents);
}

} // namespace kdacheck::modules
