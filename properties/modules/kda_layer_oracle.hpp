#pragma once
// The layer's oracle on a module's call, in any number type.

#include "../../kernels/modules/kda_layer.hpp"
#include "../../reference/kda_layer_adjoint.hpp"
#include "module_suite.hpp"

namespace kdacheck {

LayerForm layer_form(const modules::KdaLayer&);

/// Rows [first, first + rows) of a tensor with `columns` numbers each, as a matrix.
template <Number N>
Matrix<N> matrix_from(const modules::NamedTensor& tensor, std::int64_t rows, std::int64_t columns, std::int64_t first = 0) {
  return matrix_of<N>(rows, columns, [&](std::int64_t i, std::int64_t j) {
    return N(static_cast<double>(tensor.values[static_cast<std::size_t>((first + i) * columns + j)]));
  });
}
template <Number N> std::vector<N> numbers_from(const modules::NamedTensors& tensors, std::string_view name) {
  std::vector<N> result;
  for (const modules::NamedTensor& tensor : tensors)
    if (tensor.name == name)
      for (float x : tensor.values) result.push_back(N(static_cast<double>(x)));
  return result;
}

template <Number N> LayerTensors<N> layer_tensors(const modules::KdaLayer& l, const modules::NamedTensors& p) {
  const std::int64_t keys = l.H * l.K, values = l.HV * l.V;
  const auto matrix = [&](std::string_view name, std::int64_t rows, std::int64_t columns) {
    return matrix_from<N>(tensor_named(p, name), rows, columns);
  };
  return {.q_proj = matrix("q_proj", l.D, keys),
          .k_proj = matrix("k_proj", l.D, keys),
          .v_proj = matrix("v_proj", l.D, values),
          .q_conv = {matrix("q_conv", keys, l.conv_width), numbers_from<N>(p, "q_conv_bias")},
          .k_conv = {matrix("k_conv", keys, l.conv_width), numbers_from<N>(p, "k_conv_bias")},
          .v_conv = {matrix("v_conv", values, l.conv_width), numbers_from<N>(p, "v_conv_bias")},
          .f_down = matrix("f_down", l.D, l.gate_rank),
          .f_up = matrix("f_up", l.gate_rank, l.HV * l.K),
          .A_log = numbers_from<N>(p, "A_log"),
          .dt_bias = numbers_from<N>(p, "dt_bias"),
          .b_proj = matrix("b_proj", l.D, l.HV),
          .g_down = matrix("g_down", l.D, l.output_gate_rank),
          .g_up = matrix("g_up", l.output_gate_rank, values),
          .g_bias = numbers_from<N>(p, "g_bias"),
          .o_norm = numbers_from<N>(p, "o_norm"),
          .o_proj = matrix("o_proj", values, l.D)};
}

/// Memory of sequence n; zero where there are no states.
template <Number N> LayerMemory<N> layer_memory(const modules::KdaLayer& l, const modules::NamedTensors& states, std::int64_t n) {
  const std::int64_t keys = l.H * l.K, values = l.HV * l.V, history = l.conv_width - 1;
  LayerMemory<N> memory{Matrix<N>(history, keys), Matrix<N>(history, keys), Matrix<N>(history, values), {}};
  if (!states.empty()) {
    memory.q_conv = matrix_from<N>(tensor_named(states, "q_conv"), history, keys, n * history);
    memory.k_conv = matrix_from<N>(tensor_named(states, "k_conv"), history, keys, n * history);
    memory.v_conv = matrix_from<N>(tensor_named(states, "v_conv"), history, values, n * history);
  }
  for (std::int64_t head = 0; head < l.HV; ++head) {
    State<N> S(l.K, l.V);
    if (!states.empty()) S.element = matrix_from<N>(tensor_named(states, "memory"), l.K, l.V, (n * l.HV + head) * l.K).element;
    memory.heads.push_back(S);
  }
  return memory;
}

template <Number N> void append(std::vector<double>& to, const std::vector<N>& values) {
  for (const N& x : values) to.push_back(static_cast<double>(x));
}
template <Number N> void append(std::vector<std::vector<double>>& to, const LayerMemory<N>& memory) {
  to.resize(4);
  append(to[0], memory.q_conv.element), append(to[1], memory.k_conv.element), append(to[2], memory.v_conv.element);
  for (const State<N>& S : memory.heads) append(to[3], S.element);
}

/// In the order of for_each_tensor.
template <Number N> std::vector<std::vector<double>> in_order(const modules::KdaLayer& l, const LayerTensors<N>& d) {
  std::vector<std::vector<double>> result;
  const auto add = [&](const std::vector<N>& values) { append(result.emplace_back(), values); };
  add(d.q_proj.element), add(d.k_proj.element), add(d.v_proj.element);
  add(d.q_conv.weight.element), add(d.k_conv.weight.element), add(d.v_conv.weight.element);
  if (l.conv_bias) add(d.q_conv.bias), add(d.k_conv.bias), add(d.v_conv.bias);
  add(d.f_down.element), add(d.f_up.element);
  if (l.gate != GateForm::sigmoid) add(d.A_log), add(d.dt_bias);
  add(d.b_proj.element), add(d.g_down.element), add(d.g_up.element), add(d.g_bias), add(d.o_norm), add(d.o_proj.element);
  return result;
}

/// Outputs, states and, with cotangents, gradients of a call without padding. chunk as in `run_layer`.
template <Number N>
ExactTensors layer_oracle(const modules::KdaLayer& l, const modules::ModuleCall& call, const modules::ModuleCotangents* d,
                          std::int64_t chunk) {
  const LayerForm form = layer_form(l);
  const LayerTensors<N> p = layer_tensors<N>(l, call.parameters);
  LayerTensors<N> d_p = zero_tensors(p);
  ExactTensors result{.outputs = {{}}, .states = {}, .inputs = {{}}, .parameters = {}, .initials = {}};
  for (std::int64_t n = 0; n < call.sequences(); ++n) {
    const std::int64_t first = call.cu_seqlens[static_cast<std::size_t>(n)], T = call.cu_seqlens[static_cast<std::size_t>(n + 1)] - first;
    const Matrix<N> x = matrix_from<N>(tensor_named(call.inputs, "x"), T, l.D, first);
    const LayerMemory<N> start = layer_memory<N>(l, call.states, n);
    const LayerRun<N> run = run_layer(form, p, x, start, chunk);
    append(result.outputs[0], run.y.element);
    append(result.states, run.end);
    if (!d) continue;
    const Matrix<N> d_y = d->outputs.empty() ? Matrix<N>(T, l.D) : matrix_from<N>(tensor_named(d->outputs, "y"), T, l.D, first);
    const LayerReverse<N> back = layer_reverse(form, p, x, chunk, run, d_y, layer_memory<N>(l, d->states, n), d_p);
    append(result.inputs[0], back.x.element);
    if (!call.states.empty()) append(result.initials, back.start);
  }
  if (d) result.parameters = in_order(l, d_p);
  return result;
}

} // namespace kdacheck
