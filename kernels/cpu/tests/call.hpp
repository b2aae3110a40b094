#pragma once
// Calls a kernel on a problem with poisoned outputs, and measures what came back against the exact numbers.

#include "../../kernel.hpp"
#include "exact.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>

namespace kdacheck::tests {

/// A dense tensor in its stored format.
struct Buffer {
  std::vector<std::uint64_t> words; // aligned for every format
  TensorView view;

  Buffer(Format format, std::array<std::int64_t, 4> shape) {
    view = {.data = nullptr, .format = format, .shape = shape, .stride = contiguous_strides(shape)};
    words.assign(static_cast<std::size_t>(view.elements()) * storage_bytes(format) / 8 + 1, 0x7fc5a5a57fc5a5a5u);
    view.data = words.data();
  }
  void fill(const std::vector<float>& values) {
    for (std::size_t i = 0; i < values.size(); ++i) store(view, static_cast<std::int64_t>(i), values[i]);
  }
  std::vector<float> read() const {
    std::vector<float> values(static_cast<std::size_t>(view.elements()));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = load(view, static_cast<std::int64_t>(i));
    return values;
  }
};

/// [N,HV,K,V] to [N,HV,V,K].
inline std::vector<float> swap_last(const std::vector<float>& from, std::int64_t rows, std::int64_t columns) {
  std::vector<float> to(from.size());
  const auto block = static_cast<std::size_t>(rows * columns);
  for (std::size_t start = 0; start < from.size(); start += block)
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t c = 0; c < columns; ++c)
        to[start + static_cast<std::size_t>(c * rows + r)] = from[start + static_cast<std::size_t>(r * columns + c)];
  return to;
}

struct Called {
  std::vector<float> o, final_state;
  std::array<std::vector<float>, all_inputs.size()> gradient;
  const std::vector<float>& operator[](Input input) const { return gradient[static_cast<std::size_t>(input)]; }
};

/// Buffers of one call, kept alive while the kernel runs.
struct Call {
  const Kernel& kernel;
  const Problem& problem;
  std::vector<std::unique_ptr<Buffer>> buffers;
  Inputs inputs;

  Call(const Kernel& kernel_, const Problem& problem_) : kernel(kernel_), problem(problem_) {
    inputs.shape = problem.shape;
    inputs.options = problem.options;
    inputs.cu_seqlens = problem.cu_seqlens;
    for (Input input : all_inputs)
      if (!problem[input].empty()) inputs[input] = add(input == Input::initial_state, input_format(input), shape(input), problem[input]);
  }
  Format input_format(Input input) const { return format_of(input, input_formats(kernel.contract)); }
  std::array<std::int64_t, 4> shape(Input input) const {
    auto shape = shape_of(input, problem.shape, sequence_count(problem));
    if (input == Input::initial_state && kernel.contract.state_v_first) std::swap(shape[2], shape[3]);
    return shape;
  }
  TensorView add(bool state, Format format, const std::array<std::int64_t, 4>& shape, const std::vector<float>& values) {
    const bool swap = state && kernel.contract.state_v_first;
    TensorView view = empty(format, shape);
    buffers.back()->fill(swap ? swap_last(values, problem.shape.K, problem.shape.V) : values);
    return view;
  }
  TensorView empty(Format format, const std::array<std::int64_t, 4>& shape) {
    buffers.push_back(std::make_unique<Buffer>(format, shape));
    return buffers.back()->view;
  }
  std::vector<float> read(std::size_t buffer, bool state) const {
    auto values = buffers[buffer]->read();
    return state && kernel.contract.state_v_first ? swap_last(values, problem.shape.V, problem.shape.K) : values;
  }
};

struct Workspace {
  std::vector<std::byte> memory;
  std::span<std::byte> part;
  Workspace(const Kernel& kernel, const Inputs& inputs, bool backward) {
    const std::size_t bytes = kernel.workspace_bytes(inputs, backward);
    memory.assign(bytes + 64, std::byte{0x7f});
    void* start = memory.data();
    std::size_t space = memory.size();
    part = {static_cast<std::byte*>(std::align(64, bytes, start, space)), bytes};
  }
};

inline Called forward(const Kernel& kernel, const Problem& problem) {
  Call call(kernel, problem);
  Outputs outputs;
  const std::size_t first = call.buffers.size();
  outputs.o = call.empty(kernel.contract.output, shape_of(Output::o, problem.shape, sequence_count(problem)));
  outputs.final_state = call.empty(Format::fp32, call.shape(Input::initial_state));
  Workspace workspace(kernel, call.inputs, false);
  kernel.forward(call.inputs, outputs, workspace.part);
  Called called;
  called.o = call.read(first, false);
  called.final_state = call.read(first + 1, true);
  return called;
}

inline Called backward(const Kernel& kernel, const Problem& problem) {
  Call call(kernel, problem);
  Cotangents cotangents;
  if (!problem.d_o.empty())
    cotangents.d_o = call.add(false, kernel.contract.output, shape_of(Output::o, problem.shape, sequence_count(problem)), problem.d_o);
  if (!problem.d_final_state.empty())
    cotangents.d_final_state = call.add(true, Format::fp32, call.shape(Input::initial_state), problem.d_final_state);
  GradientOutputs gradients;
  std::array<std::size_t, all_inputs.size()> at{};
  for (Input input : all_inputs)
    if (!problem[input].empty()) {
      at[static_cast<std::size_t>(input)] = call.buffers.size();
      gradients[input] = call.empty(input == Input::initial_state ? Format::fp32 : kernel.contract.gradient, call.shape(input));
    }
  Workspace workspace(kernel, call.inputs, true);
  kernel.backward(call.inputs, cotangents, gradients, workspace.part);
  Called called;
  for (Input input : all_inputs)
    if (gradients[input])
      called.gradient[static_cast<std::size_t>(input)] = call.read(at[static_cast<std::size_t>(input)], input == Input::initial_state);
  return called;
}

/// Largest |got - exact| over a row of `width`, divided by the root mean square of all exact numbers (or 1 if they are 0).
/// NaN and a wrong size give infinity.
inline double relative_error(const std::vector<float>& got, const Numbers& exact) {
  if (got.size() != exact.size()) return std::numeric_limits<double>::infinity();
  double square = 0, worst = 0;
  for (double x : exact) square += x * x;
  const double level = square > 0 ? std::sqrt(square / static_cast<double>(exact.size())) : 1;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double error = std::fabs(static_cast<double>(got[i]) - exact[i]);
    if (!(error <= worst)) worst = error == error ? error : std::numeric_limits<double>::infinity();
  }
  return worst / level;
}

} // namespace kdacheck::tests
