#include "hybrid_module.hpp"

#include "batch_of.hpp"
#include "kda_layer_module.hpp"
#include "mla_module.hpp"

#include <algorithm>
#include <fmt/core.h>

namespace kdacheck::modules {
namespace {

void append(NamedTensors& to, std::size_t layer, NamedTensors tensors) {
  for (NamedTensor& tensor : tensors) {
    tensor.name = layer_prefix(layer) + tensor.name;
    to.push_back(std::move(tensor));
  }
}

bool latent(const HybridStack& stack, std::size_t layer) { return stack.pattern[layer] == Mixer::mla; }

KdaLayerInput input_of(const ModuleCall& call) {
  const CallTokens tokens = batch_of(call);
  return {.B = tokens.B, .T = tokens.T, .x = tensor_named(call.inputs, "x").values, .cu_seqlens = tokens.cu_seqlens, .mask = call.mask};
}

/// Tokens of each sequence that a layer's cache holds behind the call.
std::vector<std::int64_t> lengths_behind(const HybridStack& stack, const ModuleCall& call, const HybridBlockState& before) {
  std::vector<std::int64_t> lengths;
  for (std::int64_t n = 0; n < call.sequences(); ++n) {
    const std::int64_t first = call.cu_seqlens[static_cast<std::size_t>(n)], last = call.cu_seqlens[static_cast<std::size_t>(n + 1)];
    std::int64_t there = last - first;
    if (!call.mask.empty()) there = std::count_if(call.mask.begin() + first, call.mask.begin() + last, [](auto kept) { return kept != 0; });
    lengths.push_back(before.mla.tokens(stack.mla, n) + there);
  }
  return lengths;
}

HybridCotangents cotangents_of(const HybridStack& stack, const ModuleCall& call, const HybridState& before, const ModuleCotangents& d) {
  HybridCotangents result;
  if (!d.outputs.empty()) result.y = tensor_named(d.outputs, "y").values;
  if (d.states.empty()) return result;
  result.kda.resize(stack.pattern.size()), result.caches.resize(stack.pattern.size());
  for (std::size_t l = 0; l < stack.pattern.size(); ++l) {
    const NamedTensors own = layer_tensors(d.states, l);
    if (latent(stack, l))
      result.caches[l] = rows_in_use(stack.mla, tensor_named(own, "latent"),
                                     lengths_behind(stack, call, before.layers.empty() ? HybridBlockState{} : before.layers[l]));
    else
      result.kda[l] = layer_state(own);
  }
  return result;
}

} // namespace

std::string layer_prefix(std::size_t layer) { return fmt::format("layers.{}.", layer); }

NamedTensors layer_tensors(const NamedTensors& tensors, std::size_t layer) {
  const std::string prefix = layer_prefix(layer);
  NamedTensors result;
  for (const NamedTensor& tensor : tensors)
    if (tensor.name.starts_with(prefix)) result.push_back({tensor.name.substr(prefix.size()), tensor.shape, tensor.values});
  return result;
}

NamedTensors named_parameters(const HybridStack& stack, const HybridParameters& parameters) {
  NamedTensors result;
  for (std::size_t l = 0; l < stack.pattern.size(); ++l) {
    result.push_back({layer_prefix(l) + "norm", {stack.D()}, parameters[l].norm});
    append(result, l, latent(stack, l) ? named_parameters(stack.mla, parameters[l].mla) : named_parameters(stack.kda, parameters[l].kda));
  }
  return result;
}

HybridParameters hybrid_parameters(const HybridStack& stack, const NamedTensors& tensors) {
  HybridParameters p(stack.pattern.size());
  for (std::size_t l = 0; l < p.size(); ++l) {
    const NamedTensors own = layer_tensors(tensors, l);
    p[l].norm = tensor_named(own, "norm").values;
    if (latent(stack, l))
      p[l].mla = mla_parameters(stack.mla, own);
    else
      p[l].kda = layer_parameters(stack.kda, own);
  }
  return p;
}

NamedTensors named_state(const HybridStack& stack, std::int64_t sequences, std::int64_t capacity, const HybridState& state) {
  NamedTensors result;
  for (std::size_t l = 0; l < stack.pattern.size(); ++l)
    append(result, l,
           latent(stack, l) ? named_cache(stack.mla, capacity, state.layers[l].mla)
                            : named_state(stack.kda, sequences, state.layers[l].kda));
  return result;
}

HybridState hybrid_state(const HybridStack& stack, const NamedTensors& tensors) {
  HybridState state;
  for (std::size_t l = 0; l < stack.pattern.size() && !tensors.empty(); ++l) {
    const NamedTensors own = layer_tensors(tensors, l);
    state.layers.emplace_back();
    if (latent(stack, l))
      state.layers[l].mla = mla_cache(stack.mla, own);
    else
      state.layers[l].kda = layer_state(own);
  }
  return state;
}

Module hybrid_module(const HybridStack& stack, const Kernel& kernel, std::int64_t capacity, const HybridStages& stages) {
  std::string pattern;
  for (const Mixer mixer : stack.pattern) pattern += mixer == Mixer::mla ? 'M' : 'K';
  Module module{.name = "HybridAttention",
                .summary = fmt::format("{} D={} H={} K={} V={} rank={}, {}", pattern, stack.D(), stack.kda.H, stack.kda.K, stack.kda.V,
                                       stack.mla.rank, kernel.name),
                .forward = {},
                .backward = {}};
  module.forward = [=](const ModuleCall& call) -> ModuleResult {
    HybridState state = hybrid_state(stack, call.states);
    std::vector<float> y = run_hybrid(stages, stack, hybrid_parameters(stack, call.parameters), kernel, input_of(call), state);
    return {{{"y", {call.rows(), stack.D()}, std::move(y)}}, named_state(stack, call.sequences(), capacity, state)};
  };
  if (kernel.backward)
    module.backward = [=](const ModuleCall& call, const ModuleCotangents& d) -> ModuleGradients {
      const HybridState before = hybrid_state(stack, call.states);
      HybridGradients g = run_hybrid_backward(stages, stack, hybrid_parameters(stack, call.parameters), kernel, input_of(call), before,
                                              cotangents_of(stack, call, before, d));
      ModuleGradients result{{{"x", {call.rows(), stack.D()}, std::move(g.x)}}, named_parameters(stack, g.parameters), {}};
      if (call.states.empty()) return result;
      HybridState states;
      for (std::size_t l = 0; l < stack.pattern.size(); ++l) states.layers.push_back({std::move(g.kda[l]), {std::move(g.caches[l])}});
      result.states = named_state(stack, call.sequences(), capacity, states);
      for (NamedTensor& tensor : result.states)
        if (tensor.name.ends_with(".length")) std::ranges::fill(tensor.values, 0.0f); // a count has no slope
      return result;
    };
  return module;
}

} // namespace kdacheck::modules
