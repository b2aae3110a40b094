#include "kda_layer_stages.hpp"

#include "philox_uniform.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <fmt/core.h>
#include <limits>
#include <stdexcept>
#include <string>

namespace kdacheck::modules {
namespace {

using Extents = std::span<const std::int64_t>;

std::size_t count_of(Extents shape) {
  std::int64_t count = 1;
  for (std::int64_t extent : shape) count *= extent;
  return static_cast<std::size_t>(count);
}

/// "2,3"
std::string shape_text(Extents shape) {
  std::string text;
  for (std::int64_t extent : shape) {
    if (!text.empty()) text += ',';
    text += std::to_string(extent);
  }
  return text;
}

void check_size(std::string_view tensor, std::size_t count, std::int64_t wanted, const char* shape) {
  if (static_cast<std::int64_t>(count) != wanted)
    throw std::invalid_argument(fmt::format("layer: {} has {} numbers, its shape {} needs {}", tensor, count, shape, wanted));
}

} // namespace

void for_each_tensor(const KdaLayer& layer, KdaLayerParameters& p,
                     const std::function<void(std::string_view, Extents, std::vector<float>&)>& visit) {
  const std::int64_t D = layer.D, keys = layer.H * layer.K, values = layer.HV * layer.V, width = layer.conv_width;
  const auto tensor = [&](std::string_view name, std::vector<float>& values_of, std::initializer_list<std::int64_t> shape) {
    visit(name, std::span(shape.begin(), shape.size()), values_of);
  };
  tensor("q_proj", p.q_proj, {D, keys});
  tensor("k_proj", p.k_proj, {D, keys});
  tensor("v_proj", p.v_proj, {D, values});
  tensor("q_conv", p.q_conv, {keys, width});
  tensor("k_conv", p.k_conv, {keys, width});
  tensor("v_conv", p.v_conv, {values, width});
  if (layer.conv_bias) {
    tensor("q_conv_bias", p.q_conv_bias, {keys});
    tensor("k_conv_bias", p.k_conv_bias, {keys});
    tensor("v_conv_bias", p.v_conv_bias, {values});
  }
  tensor("f_down", p.f_down, {D, layer.gate_rank});
  tensor("f_up", p.f_up, {layer.gate_rank, layer.HV * layer.K});
  if (layer.gate != GateForm::sigmoid) {
    tensor("A_log", p.A_log, {layer.HV});
    tensor("dt_bias", p.dt_bias, {layer.HV * layer.K});
  }
  tensor("b_proj", p.b_proj, {D, layer.HV});
  tensor("g_down", p.g_down, {D, layer.output_gate_rank});
  tensor("g_up", p.g_up, {layer.output_gate_rank, values});
  tensor("g_bias", p.g_bias, {values});
  tensor("o_norm", p.o_norm, {layer.V});
  tensor("o_proj", p.o_proj, {values, D});
}

KdaLayerParameters initial_parameters(const KdaLayer& layer, std::uint64_t seed) {
  check_layer(layer);
  KdaLayerParameters p;
  for_each_tensor(layer, p, [&](std::string_view name, Extents shape, std::vector<float>& values) {
    std::uint32_t stream = 0; // of the name alone: tensors that a layer may lack shift nothing
    for (char letter : name) stream = stream * 31 + static_cast<unsigned char>(letter);
    const double columns = static_cast<double>(shape.back());
    if (name == "o_norm")
      values.assign(count_of(shape), 1.0f);
    else if (name.ends_with("bias"))
      values.assign(count_of(shape), 0.0f);
    else if (name == "A_log") {
      values = uniform_numbers(shape[0], 7.5, seed, stream);
      for (float& x : values) x = static_cast<float>(std::log(8.5 + static_cast<double>(x)));
    } else {
      const bool convolution = name.ends_with("conv");
      const double limit = convolution ? 1 / std::sqrt(columns) : std::sqrt(6.0 / (static_cast<double>(shape[0]) + columns));
      values = uniform_numbers(static_cast<std::int64_t>(count_of(shape)), limit, seed, stream);
    }
  });
  return p;
}

void check_layer(const KdaLayer& l) {
  for (const auto& [name, extent] : std::array<std::pair<const char*, std::int64_t>, 7>{{{"D", l.D},
                                                                                         {"H", l.H},
                                                                                         {"HV", l.HV},
                                                                                         {"K", l.K},
                                                                                         {"V", l.V},
                                                                                         {"gate_rank", l.gate_rank},
                                                                                         {"output_gate_rank", l.output_gate_rank}}})
    if (extent < 1) throw std::invalid_argument(fmt::format("layer: {} = {} must be positive", name, extent));
  if (l.HV % l.H != 0) throw std::invalid_argument(fmt::format("layer: HV = {} is no multiple of H = {}", l.HV, l.H));
  if (l.conv_width < 1 || l.conv_width > 16)
    throw std::invalid_argument(fmt::format("layer: conv_width = {} is not in 1 to 16", l.conv_width));
  if (!(l.norm_epsilon > 0) || !std::isfinite(l.norm_epsilon))
    throw std::invalid_argument(fmt::format("layer: norm_epsilon = {} must be positive and finite", l.norm_epsilon));
}

void check_layer_call(const KdaLayer& layer, const KdaLayerParameters& parameters, const KdaLayerInput& input, const KdaLayerState& state) {
  check_layer(layer);
  KdaLayerParameters& p = const_cast<KdaLayerParameters&>(parameters); // visited, not changed
  for_each_tensor(layer, p, [](std::string_view name, Extents shape, std::vector<float>& values) {
    if (values.size() != count_of(shape))
      throw std::invalid_argument(
          fmt::format("layer: {} has {} numbers, its shape [{}] needs {}", name, values.size(), shape_text(shape), count_of(shape)));
  });
  for (const auto& [name, absent] : std::array<std::pair<const char*, const std::vector<float>*>, 5>{
           {{"q_conv_bias", layer.conv_bias ? nullptr : &p.q_conv_bias},
            {"k_conv_bias", layer.conv_bias ? nullptr : &p.k_conv_bias},
            {"v_conv_bias", layer.conv_bias ? nullptr : &p.v_conv_bias},
            {"A_log", layer.gate == GateForm::sigmoid ? &p.A_log : nullptr},
            {"dt_bias", layer.gate == GateForm::sigmoid ? &p.dt_bias : nullptr}}})
    if (absent && !absent->empty()) throw std::invalid_argument(fmt::format("layer: {} is given, but this layer has none", name));
  check_size("x", input.x.size(), input.B * input.T * layer.D, "[B,T,D]");
  for (std::size_t i = 0; i < input.x.size(); ++i)
    if (!(std::fabs(input.x[i]) <= std::numeric_limits<float>::max()))
      throw std::invalid_argument(fmt::format("layer: x holds {} at element {}, all must be finite", input.x[i], i));
  const std::int64_t N = input.cu_seqlens.empty() ? input.B : static_cast<std::int64_t>(input.cu_seqlens.size()) - 1;
  const std::int64_t keys = layer.H * layer.K, values = layer.HV * layer.V, history = layer.conv_width - 1;
  if (!state.q_conv.empty()) check_size("the state of q_conv", state.q_conv.size(), N * history * keys, "[N,conv_width-1,H*K]");
  if (!state.k_conv.empty()) check_size("the state of k_conv", state.k_conv.size(), N * history * keys, "[N,conv_width-1,H*K]");
  if (!state.v_conv.empty()) check_size("the state of v_conv", state.v_conv.size(), N * history * values, "[N,conv_width-1,HV*V]");
  if (!state.memory.empty()) check_size("the memory", state.memory.size(), N * values * layer.K, "[N,HV,K,V]");
}

} // namespace kdacheck::modules
