#include "kda_layer_module.hpp"

#include "batch_of.hpp"

#include <fmt/core.h>

namespace kdacheck::modules {

KdaLayerParameters layer_parameters(const KdaLayer& layer, const NamedTensors& tensors) {
  KdaLayerParameters p;
  for_each_tensor(layer, p, [&](std::string_view name, std::span<const std::int64_t>, std::vector<float>& values) {
    values = tensor_named(tensors, name).values;
  });
  return p;
}

NamedTensors named_parameters(const KdaLayer& layer, const KdaLayerParameters& parameters) {
  NamedTensors tensors;
  KdaLayerParameters p = parameters;
  for_each_tensor(layer, p, [&](std::string_view name, std::span<const std::int64_t> shape, std::vector<float>& values) {
    tensors.push_back({std::string(name), {shape.begin(), shape.end()}, std::move(values)});
  });
  return tensors;
}

KdaLayerState layer_state(const NamedTensors& tensors) {
  if (tensors.empty()) return {};
  return {tensor_named(tensors, "q_conv").values, tensor_named(tensors, "k_conv").values, tensor_named(tensors, "v_conv").values,
          tensor_named(tensors, "memory").values};
}

NamedTensors named_state(const KdaLayer& layer, std::int64_t N, const KdaLayerState& state) {
  const std::int64_t keys = layer.H * layer.K, values = layer.HV * layer.V, history = layer.conv_width - 1;
  return {{"q_conv", {N, history, keys}, state.q_conv},
          {"k_conv", {N, history, keys}, state.k_conv},
          {"v_conv", {N, history, values}, state.v_conv},
          {"memory", {N, layer.HV, layer.K, layer.V}, state.memory}};
}

Module kda_layer_module(const KdaLayer& layer, const Kernel& kernel, const LayerStages& stages) {
  const auto input_of = [](const ModuleCall& call) {
    const CallTokens tokens = batch_of(call);
    return KdaLayerInput{
        .B = tokens.B, .T = tokens.T, .x = tensor_named(call.inputs, "x").values, .cu_seqlens = tokens.cu_seqlens, .mask = call.mask};
  };
  Module module{.name = "KimiDeltaAttention",
                .summary = fmt::format("D={} H={} HV={} K={} V={} conv={} {} gate, {}", layer.D, layer.H, layer.HV, layer.K, layer.V,
                                       layer.conv_width, name(layer.gate), kernel.name),
                .forward = {},
                .backward = {}};
  module.forward = [=](const ModuleCall& call) -> ModuleResult {
    KdaLayerOutput out =
        run_layer(stages, layer, layer_parameters(layer, call.parameters), kernel, input_of(call), layer_state(call.states));
    return {{{"y", {call.rows(), layer.D}, std::move(out.y)}}, named_state(layer, call.sequences(), out.final_state)};
  };
  if (kernel.backward)
    module.backward = [=](const ModuleCall& call, const ModuleCotangents& d) -> ModuleGradients {
      const std::vector<float> none;
      const KdaLayerCotangents cotangents{d.outputs.empty() ? std::span<const float>(none) : tensor_named(d.outputs, "y").values,
                                          layer_state(d.states)};
      KdaLayerGradients g = run_layer_backward(stages, layer, layer_parameters(layer, call.parameters), kernel, input_of(call),
                                               layer_state(call.states), cotangents);
      return {{{"x", {call.rows(), layer.D}, std::move(g.x)}},
              named_parameters(layer, g.parameters),
              call.states.empty() ? NamedTensors{} : named_state(layer, call.sequences(), g.state)};
    };
  return module;
}

} // namespace kdacheck::modules
