#include "plain_modules.hpp"

#include "batch_of.hpp"
#include "dplr_transition.hpp"
#include "masked_module.hpp"
#include "state_manager.hpp"
#include "transition_backward.hpp"

#include <algorithm>
#include <array>
#include <fmt/core.h>
#include <stdexcept>
#include <utility>

namespace kdacheck::modules {
namespace {

bool biased(const ModuleCall& call) { return std::ranges::find(call.parameters, "dt_bias", &NamedTensor::name) != call.parameters.end(); }

GatingParameters gate_parameters_of(const Gating& gating, const ModuleCall& call) {
  GatingParameters p{
      .down = tensor_named(call.parameters, "down").values, .up = tensor_named(call.parameters, "up").values, .A_log = {}, .dt_bias = {}};
  if (gating.form == GateForm::sigmoid) return p;
  p.A_log = tensor_named(call.parameters, "A_log").values;
  if (biased(call)) p.dt_bias = tensor_named(call.parameters, "dt_bias").values;
  return p;
}

GatingInput gate_input_of(const ModuleCall& call) {
  const CallTokens tokens = batch_of(call);
  return {.B = tokens.B, .T = tokens.T, .x = tensor_named(call.inputs, "x").values};
}

std::span<float> row_of(NamedTensor& tensor, std::int64_t row) {
  const auto width = static_cast<std::size_t>(element_count(std::span(tensor.shape).subspan(1)));
  return std::span(tensor.values).subspan(static_cast<std::size_t>(row) * width, width);
}

std::span<const float> rows(const ModuleCall& call, const char* name, std::int64_t row) {
  const NamedTensor& tensor = tensor_named(call.inputs, name);
  const auto width = static_cast<std::size_t>(element_count(std::span(tensor.shape).subspan(1)));
  return std::span(tensor.values).subspan(static_cast<std::size_t>(row) * width, width);
}

/// A step's update, token by token, and its reverse; `names` are the inputs in the order of Step's members.
template <class Step, class Gradients, std::size_t count>
Module stepped_module(const char* name, const std::array<const char*, count>& names, const StateShape& shape) {
  Module module{name, fmt::format("H={} K={} V={}", shape.H, shape.K, shape.V), {}, {}};
  const auto size = static_cast<std::size_t>(shape.elements());
  const auto step_of = [=](const ModuleCall& call, std::int64_t row) {
    return
        [&]<std::size_t... i>(std::index_sequence<i...>) { return Step{rows(call, names[i], row)...}; }(std::make_index_sequence<count>{});
  };
  const auto memory_of = [=](const NamedTensors& states, std::int64_t N) {
    return states.empty() ? zeros("memory", {N, shape.H, shape.K, shape.V}) : tensor_named(states, "memory");
  };
  module.forward = [=](const ModuleCall& call) -> ModuleResult {
    NamedTensor memory = memory_of(call.states, call.sequences());
    for (std::int64_t n = 0; n < call.sequences(); ++n)
      for (std::int64_t row = call.cu_seqlens[static_cast<std::size_t>(n)]; row < call.cu_seqlens[static_cast<std::size_t>(n + 1)]; ++row)
        update(shape, step_of(call, row), row_of(memory, n));
    return {{}, {std::move(memory)}};
  };
  module.backward = [=](const ModuleCall& call, const ModuleCotangents& d) -> ModuleGradients {
    ModuleGradients result;
    for (const char* tensor : names) result.inputs.push_back(zeros(tensor, tensor_named(call.inputs, tensor).shape));
    NamedTensor d_memory = memory_of(d.states, call.sequences());
    for (std::int64_t n = 0; n < call.sequences(); ++n) {
      const std::int64_t first = call.cu_seqlens[static_cast<std::size_t>(n)], last = call.cu_seqlens[static_cast<std::size_t>(n + 1)];
      std::vector<std::vector<float>> before; // every token
      std::vector<float> state(size, 0.0f);
      if (!call.states.empty()) std::copy_n(tensor_named(call.states, "memory").values.begin() + n * shape.elements(), size, state.begin());
      for (std::int64_t row = first; row < last; ++row) before.push_back(state), update(shape, step_of(call, row), state);
      for (std::int64_t row = last - 1; row >= first; --row)
        update_backward(shape, step_of(call, row), before[static_cast<std::size_t>(row - first)], row_of(d_memory, n),
                        [&]<std::size_t... i>(std::index_sequence<i...>) {
                          return Gradients{row_of(result.inputs[i], row)...};
                        }(std::make_index_sequence<count>{}));
    }
    if (!call.states.empty()) result.states.push_back(std::move(d_memory));
    return result;
  };
  return masked(module);
}

} // namespace

Module gating_module(const Gating& gating) {
  Module module{
      "FineGrainedGating", fmt::format("D={} rank={} H={} K={} {}", gating.D, gating.rank, gating.H, gating.K, name(gating.form)), {}, {}};
  module.forward = [gating](const ModuleCall& call) -> ModuleResult {
    NamedTensor alpha = zeros("alpha", {call.rows(), gating.width()}), log_decay = zeros("log_decay", alpha.shape);
    gates(gating, gate_parameters_of(gating, call), gate_input_of(call), {.alpha = alpha.values, .log_decay = log_decay.values});
    return {{std::move(alpha), std::move(log_decay)}, {}};
  };
  module.backward = [gating](const ModuleCall& call, const ModuleCotangents& d) -> ModuleGradients {
    const auto part = [&](const char* tensor) {
      return d.outputs.empty() ? std::span<const float>{} : std::span<const float>(tensor_named(d.outputs, tensor).values);
    };
    GatingGradients g = gates_backward(gating, gate_parameters_of(gating, call), gate_input_of(call),
                                       {.alpha = part("alpha"), .log_decay = part("log_decay")});
    ModuleGradients result;
    result.inputs.push_back({"x", {call.rows(), gating.D}, std::move(g.x)});
    const auto put = [&](const char* tensor, std::vector<float>& values) {
      result.parameters.push_back({tensor, tensor_named(call.parameters, tensor).shape, std::move(values)});
    };
    put("down", g.down), put("up", g.up);
    if (gating.form != GateForm::sigmoid) put("A_log", g.A_log);
    if (gating.form != GateForm::sigmoid && biased(call)) put("dt_bias", g.dt_bias);
    return result;
  };
  return masked(module);
}

Module transition_module(std::int64_t H, std::int64_t K, std::int64_t V) {
  return stepped_module<KdaStep, KdaStepGradients>("DPLRTransition", std::array{"alpha", "k", "beta", "v"},
                                                   {.B = 1, .H = H, .K = K, .V = V});
}

Module general_transition_module(std::int64_t H, std::int64_t K, std::int64_t V) {
  return stepped_module<DplrStep, DplrStepGradients>("DPLRTransition.general", std::array{"d", "a", "b", "k", "v"},
                                                     {.B = 1, .H = H, .K = K, .V = V});
}

Module state_manager_module(std::int64_t H, std::int64_t K, std::int64_t V) {
  Module module{"StateManager", fmt::format("H={} K={} V={}", H, K, V), {}, {}};
  module.forward = [=](const ModuleCall& call) -> ModuleResult {
    const std::int64_t N = call.sequences(), T = N > 0 ? call.rows() / N : 0;
    for (std::int64_t n = 0; n <= N; ++n)
      if (call.cu_seqlens[static_cast<std::size_t>(n)] != n * T)
        throw std::invalid_argument("states: sequences of a batch are of one length");
    if (!call.states.empty()) throw std::invalid_argument("states: a manager starts from zero, from a checkpoint or from a file");
    StateManager manager({.largest = {N, H, K, V}, .checkpoint_interval = 0});
    const auto values = [&](const char* name) { return std::span<const float>(tensor_named(call.inputs, name).values); };
    manager.update({.B = N, .T = T, .alpha = values("alpha"), .k = values("k"), .beta = values("beta"), .v = values("v")});
    return {{}, {{"memory", {N, H, K, V}, {manager.states().begin(), manager.states().end()}}}};
  };
  return module;
}

} // namespace kdacheck::modules
