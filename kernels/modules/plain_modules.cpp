#include "plain_modules.hpp"

#include "dplr_transition.hpp"
#include "masked_module.hpp"
#include "transition_backward.hpp"

#include <algorithm>
#include <fmt/core.h>

namespace kdacheck::modules {
namespace {

GatingParameters gate_parameters_of(const Gating& gating, const ModuleCall& call) {
  GatingParameters p{
      .down = tensor_named(call.parameters, "down").values, .up = tensor_named(call.parameters, "up").values, .A_log = {}, .dt_bias = {}};
  if (gating.form == GateForm::sigmoid) return p;
  p.A_log = tensor_named(call.parameters, "A_log").values, p.dt_bias = tensor_named(call.parameters, "dt_bias").values;
  return p;
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

} // namespace

Module gating_module(const Gating& gating) {
  Module module{
      "FineGrainedGating", fmt::format("D={} rank={} H={} K={} {}", gating.D, gating.rank, gating.H, gating.K, name(gating.form)), {}, {}};
  module.forward = [gating](const ModuleCall& call) -> ModuleResult {
    NamedTensor alpha = zeros("alpha", {call.rows(), gating.width()}), log_decay = zeros("log_decay", alpha.shape);
    gates(gating, gate_parameters_of(gating, call), {.B = 1, .T = call.rows(), .x = tensor_named(call.inputs, "x").values},
          {.alpha = alpha.values, .log_decay = log_decay.values});
    return {{std::move(alpha), std::move(log_decay)}, {}};
  };
  module.backward = [gating](const ModuleCall& call, const ModuleCotangents& d) -> ModuleGradients {
    const auto part = [&](const char* tensor) {
      return d.outputs.empty() ? std::span<const float>{} : std::span<const float>(tensor_named(d.outputs, tensor).values);
    };
    GatingGradients g =
        gates_backward(gating, gate_parameters_of(gating, call), {.B = 1, .T = call.rows(), .x = tensor_named(call.inputs, "x").values},
                       {.alpha = part("alpha"), .log_decay = part("log_decay")});
    ModuleGradients result;
    result.inputs.push_back({"x", {call.rows(), gating.D}, std::move(g.x)});
    const auto put = [&](const char* tensor, std::vector<float>& values) {
      result.parameters.push_back({tensor, tensor_named(call.parameters, tensor).shape, std::move(values)});
    };
    put("down", g.down), put("up", g.up);
    if (gating.form != GateForm::sigmoid) put("A_log", g.A_log), put("dt_bias", g.dt_bias);
    return result;
  };
  return masked(module);
}

Module transition_module(std::int64_t H, std::int64_t K, std::int64_t V) {
  Module module{"DPLRTransition", fmt::format("H={} K={} V={}", H, K, V), {}, {}};
  module.forward = [=](const ModuleCall& call) -> ModuleResult {
    NamedTensor memory = call.states.empty() ? zeros("memory", {call.sequences(), H, K, V}) : tensor_named(call.states, "memory");
    for (std::int64_t n = 0; n < call.sequences(); ++n) {
      const auto state = std::span(memory.values).subspan(static_cast<std::size_t>(n * H * K * V), static_cast<std::size_t>(H * K * V));
      for (std::int64_t row = call.cu_seqlens[static_cast<std::size_t>(n)]; row < call.cu_seqlens[static_cast<std::size_t>(n + 1)]; ++row)
        update(
            {.B = 1, .H = H, .K = K, .V = V},
            KdaStep{
                .alpha = rows(call, "alpha", row), .k = rows(call, "k", row), .beta = rows(call, "beta", row), .v = rows(call, "v", row)},
            state);
    }
    return {{}, {std::move(memory)}};
  };
  module.backward = [=](const ModuleCall& call, const ModuleCotangents& d) -> ModuleGradients {
    const StateShape shape{.B = 1, .H = H, .K = K, .V = V};
    const auto size = static_cast<std::size_t>(shape.elements());
    ModuleGradients result;
    for (const char* tensor : {"alpha", "k", "beta", "v"}) result.inputs.push_back(zeros(tensor, tensor_named(call.inputs, tensor).shape));
    NamedTensor d_memory = d.states.empty() ? zeros("memory", {call.sequences(), H, K, V}) : tensor_named(d.states, "memory");
    const auto step_of = [&](std::int64_t row) {
      return KdaStep{
          .alpha = rows(call, "alpha", row), .k = rows(call, "k", row), .beta = rows(call, "beta", row), .v = rows(call, "v", row)};
    };
    for (std::int64_t n = 0; n < call.sequences(); ++n) {
      const std::int64_t first = call.cu_seqlens[static_cast<std::size_t>(n)], last = call.cu_seqlens[static_cast<std::size_t>(n + 1)];
      std::vector<std::vector<float>> before; // every token
      std::vector<float> state(size, 0.0f);
      if (!call.states.empty()) std::copy_n(tensor_named(call.states, "memory").values.begin() + n * shape.elements(), size, state.begin());
      for (std::int64_t row = first; row < last; ++row) before.push_back(state), update(shape, step_of(row), state);
      const auto d_state = std::span(d_memory.values).subspan(static_cast<std::size_t>(n) * size, size);
      for (std::int64_t row = last - 1; row >= first; --row)
        update_backward(shape, step_of(row), before[static_cast<std::size_t>(row - first)], d_state,
                        {.alpha = row_of(result.inputs[0], row),
                         .k = row_of(result.inputs[1], row),
                         .beta = row_of(result.inputs[2], row),
                         .v = row_of(result.inputs[3], row)});
    }
    if (!call.states.empty()) result.states.push_back(std::move(d_memory));
    return result;
  };
  return masked(module);
}

} // namespace kdacheck::modules
