#include "mla_module.hpp"

#include "batch_of.hpp"

#include <algorithm>
#include <fmt/core.h>
#include <stdexcept>

namespace kdacheck::modules {

MlaParameters mla_parameters(const Mla& mla, const NamedTensors& tensors) {
  MlaParameters p;
  for_each_tensor(mla, p, [&](std::string_view name, std::span<const std::int64_t>, std::vector<float>& values) {
    values = tensor_named(tensors, name).values;
  });
  return p;
}

NamedTensors named_parameters(const Mla& mla, const MlaParameters& parameters) {
  NamedTensors tensors;
  MlaParameters p = parameters;
  for_each_tensor(mla, p, [&](std::string_view name, std::span<const std::int64_t> shape, std::vector<float>& values) {
    tensors.push_back({std::string(name), {shape.begin(), shape.end()}, std::move(values)});
  });
  return tensors;
}

std::vector<std::vector<float>> rows_in_use(const Mla& mla, const NamedTensor& latent, const std::vector<std::int64_t>& lengths) {
  std::vector<std::vector<float>> rows;
  auto at = latent.values.begin();
  for (std::int64_t length : lengths) {
    if (length < 0 || length > latent.shape[1])
      throw std::invalid_argument(fmt::format("MLA: a cache of {} tokens, its capacity is {}", length, latent.shape[1]));
    rows.emplace_back(at, at + length * mla.cached());
    at += latent.shape[1] * latent.shape[2];
  }
  return rows;
}

MlaCache mla_cache(const Mla& mla, const NamedTensors& states) {
  if (states.empty()) return {};
  const NamedTensor& length = tensor_named(states, "length");
  return {rows_in_use(mla, tensor_named(states, "latent"), {length.values.begin(), length.values.end()})};
}

NamedTensors named_cache(const Mla& mla, std::int64_t capacity, const MlaCache& cache) {
  const auto N = static_cast<std::int64_t>(cache.rows.size());
  NamedTensor latent = zeros("latent", {N, capacity, mla.cached()}), length = zeros("length", {N});
  for (std::int64_t n = 0; n < N; ++n) {
    const std::vector<float>& rows = cache.rows[static_cast<std::size_t>(n)];
    if (cache.tokens(mla, n) > capacity)
      throw std::invalid_argument(
          fmt::format("MLA: sequence {} has {} tokens, the cache's capacity is {}", n, cache.tokens(mla, n), capacity));
    std::ranges::copy(rows, latent.values.begin() + n * capacity * mla.cached());
    length.values[static_cast<std::size_t>(n)] = static_cast<float>(cache.tokens(mla, n));
  }
  return {std::move(latent), std::move(length)};
}

Module mla_module(const Mla& mla, std::int64_t capacity, const MlaStages& stages) {
  const auto input_of = [](const ModuleCall& call) {
    const CallTokens tokens = batch_of(call);
    return MlaInput{
        .B = tokens.B, .T = tokens.T, .x = tensor_named(call.inputs, "x").values, .cu_seqlens = tokens.cu_seqlens, .mask = call.mask};
  };
  Module module{.name = "MultiheadLatentAttention",
                .summary = fmt::format("D={} H={} K={}+{} V={} rank={}", mla.D, mla.H, mla.K, mla.K_shared, mla.V, mla.rank),
                .forward = {},
                .backward = {}};
  module.forward = [=](const ModuleCall& call) -> ModuleResult {
    MlaCache cache = mla_cache(mla, call.states);
    std::vector<float> y = run_mla(stages, mla, mla_parameters(mla, call.parameters), input_of(call), cache);
    return {{{"y", {call.rows(), mla.D}, std::move(y)}}, named_cache(mla, capacity, cache)};
  };
  module.backward = [=](const ModuleCall& call, const ModuleCotangents& d) -> ModuleGradients {
    const MlaCache before = mla_cache(mla, call.states);
    MlaCotangents cotangents;
    if (!d.outputs.empty()) cotangents.y = tensor_named(d.outputs, "y").values;
    if (!d.states.empty()) {
      std::vector<std::int64_t> lengths;
      for (std::int64_t n = 0; n < call.sequences(); ++n) {
        const std::int64_t first = call.cu_seqlens[static_cast<std::size_t>(n)], last = call.cu_seqlens[static_cast<std::size_t>(n + 1)];
        std::int64_t there = last - first;
        if (!call.mask.empty())
          there = std::count_if(call.mask.begin() + first, call.mask.begin() + last, [](auto kept) { return kept != 0; });
        lengths.push_back(before.tokens(mla, n) + there);
      }
      cotangents.cache = rows_in_use(mla, tensor_named(d.states, "latent"), lengths);
    }
    MlaGradients g = run_mla_backward(stages, mla, mla_parameters(mla, call.parameters), input_of(call), before, cotangents);
    ModuleGradients result{{{"x", {call.rows(), mla.D}, std::move(g.x)}}, named_parameters(mla, g.parameters), {}};
    if (call.states.empty()) return result;
    result.states = named_cache(mla, capacity, {std::move(g.cache)});
    std::ranges::fill(tensor_named(result.states, "length").values, 0.0f); // a count has no slope
    return result;
  };
  return module;
}

} // namespace kdacheck::modules
