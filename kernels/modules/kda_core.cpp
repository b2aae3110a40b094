#include "kda_core.hpp"

#include <algorithm>
#include <cmath>
#include <memory>
#include <new>
#include <stdexcept>

namespace kdacheck::modules {
namespace {

constexpr std::align_val_t alignment{64};
struct Release {
  void operator()(std::byte* memory) const { ::operator delete[](memory, alignment); }
};
using Memory = std::unique_ptr<std::byte[], Release>;
Memory memory_of(std::size_t bytes) {
  return Memory(static_cast<std::byte*>(::operator new[](std::max<std::size_t>(bytes, 64), alignment)));
}

/// A tensor in the kernel's format: the caller's numbers where they are that already, else a copy.
struct Stored {
  TensorView view;
  Memory memory{};
};
Stored empty_tensor(std::array<std::int64_t, 4> shape, Format format) {
  Stored stored{{nullptr, format, shape, contiguous_strides(shape)}, {}};
  stored.memory = memory_of(static_cast<std::size_t>(stored.view.elements()) * storage_bytes(format));
  stored.view.data = stored.memory.get();
  return stored;
}
Stored stored(std::span<const float> values, std::array<std::int64_t, 4> shape, Format format) {
  if (format == Format::fp32) return {{const_cast<float*>(values.data()), format, shape, contiguous_strides(shape)}, {}};
  Stored result = empty_tensor(shape, format);
  for (std::size_t i = 0; i < values.size(); ++i) store(result.view, static_cast<std::int64_t>(i), values[i]);
  return result;
}
std::vector<float> loaded(const TensorView& view) {
  std::vector<float> values(static_cast<std::size_t>(view.elements()));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = load(view, static_cast<std::int64_t>(i));
  return values;
}

/// [N,HV,K,V] to [N,HV,V,K] and, with K and V exchanged, back.
std::vector<float> turned(std::span<const float> states, std::int64_t K, std::int64_t V) {
  std::vector<float> result(states.size());
  const std::int64_t heads = static_cast<std::int64_t>(states.size()) / (K * V);
  for (std::int64_t h = 0; h < heads; ++h)
    for (std::int64_t i = 0; i < K; ++i)
      for (std::int64_t j = 0; j < V; ++j)
        result[static_cast<std::size_t>((h * V + j) * K + i)] = states[static_cast<std::size_t>((h * K + i) * V + j)];
  return result;
}

constexpr double norm_epsilon = 1e-6; // part of the published layer's definition of l2norm

/// Rows of length K divided by sqrt(sum x^2 + 1e-6), for kernels that want it done.
struct UnitRows {
  std::vector<float> rows;
  std::vector<double> inverse;
};
UnitRows unit_rows(std::span<const float> x, std::int64_t K) {
  UnitRows result{std::vector<float>(x.size()), {}};
  for (std::size_t at = 0; at < x.size(); at += static_cast<std::size_t>(K)) {
    double sum = norm_epsilon;
    for (float e : x.subspan(at, static_cast<std::size_t>(K))) sum += static_cast<double>(e) * static_cast<double>(e);
    result.inverse.push_back(1 / std::sqrt(sum));
    for (std::size_t i = at; i < at + static_cast<std::size_t>(K); ++i)
      result.rows[i] = static_cast<float>(static_cast<double>(x[i]) * result.inverse.back());
  }
  return result;
}
void unit_rows_backward(std::span<const float> x, const UnitRows& unit, std::int64_t K, std::vector<float>& d) {
  for (std::size_t row = 0; row < unit.inverse.size(); ++row) {
    const std::size_t at = row * static_cast<std::size_t>(K), end = at + static_cast<std::size_t>(K);
    const double r = unit.inverse[row];
    double along = 0;
    for (std::size_t i = at; i < end; ++i) along += r * static_cast<double>(x[i]) * static_cast<double>(d[i]);
    for (std::size_t i = at; i < end; ++i)
      d[i] = static_cast<float>(r * (static_cast<double>(d[i]) - r * static_cast<double>(x[i]) * along));
  }
}

bool equal_lengths(std::span<const std::int64_t> cu) {
  for (std::size_t n = 2; n < cu.size(); ++n)
    if (cu[n] - cu[n - 1] != cu[1]) return false;
  return true;
}

/// Everything a call of the kernel reads, alive as long as the call.
struct Call {
  Inputs inputs;
  UnitRows q, k;
  std::vector<float> state;
  std::vector<Stored> tensors;

  Call(const Kernel& kernel, const CoreTokens& t) {
    const Contract& contract = kernel.contract;
    const auto takes = [](const auto& list, auto wanted) { return std::ranges::find(list, wanted) != list.end(); };
    if (!takes(contract.rules, Rule::kda)) throw std::invalid_argument("the kernel " + kernel.name + " does not compute KDA");
    if (!takes(contract.gates, GateForm::log_decay)) throw std::invalid_argument("the kernel " + kernel.name + " takes no log decay");
    if (!takes(contract.betas, BetaForm::value)) throw std::invalid_argument("the kernel " + kernel.name + " takes no values of beta");
    const bool batch = equal_lengths(t.cu_seqlens);
    const std::int64_t N = t.sequences(), B = batch ? N : 1, T = batch ? t.cu_seqlens[1] : t.rows();
    inputs.shape = {.B = B, .T = T, .H = t.H, .HV = t.HV, .K = t.K, .V = t.V};
    const bool outside = t.normalise && !contract.l2norm_inside;
    if (!t.normalise && !contract.l2norm_outside) throw std::invalid_argument("the kernel " + kernel.name + " always normalises q and k");
    inputs.options.l2norm = t.normalise && contract.l2norm_inside;
    inputs.options.scale = t.scale;
    if (!batch) inputs.cu_seqlens = t.cu_seqlens;
    if (outside) q = unit_rows(t.q, t.K), k = unit_rows(t.k, t.K);
    const auto take = [&](Input input, std::span<const float> values) {
      tensors.push_back(stored(values, shape_of(input, inputs.shape, N), format_of(input, input_formats(contract))));
      inputs[input] = tensors.back().view;
    };
    take(Input::q, outside ? std::span<const float>(q.rows) : t.q);
    take(Input::k, outside ? std::span<const float>(k.rows) : t.k);
    take(Input::v, t.v);
    take(Input::g, t.log_decay);
    take(Input::beta, t.beta);
    if (t.state.empty()) return;
    if (contract.state_v_first) state = turned(t.state, t.K, t.V);
    take(Input::initial_state, contract.state_v_first ? std::span<const float>(state) : t.state);
    if (contract.state_v_first) inputs[Input::initial_state] = v_first(inputs[Input::initial_state]);
  }

  /// The view of a state in the other layout.
  static TensorView v_first(TensorView view) {
    std::swap(view.shape[2], view.shape[3]);
    view.stride = contiguous_strides(view.shape);
    return view;
  }
};

Stored empty_state(const Kernel& kernel, const CoreTokens& t) {
  const bool v_first = kernel.contract.state_v_first;
  return empty_tensor({t.sequences(), t.HV, v_first ? t.V : t.K, v_first ? t.K : t.V}, Format::fp32);
}
std::vector<float> loaded_state(const Kernel& kernel, const CoreTokens& t, const TensorView& view) {
  std::vector<float> values = loaded(view);
  return kernel.contract.state_v_first ? turned(values, t.V, t.K) : values;
}

} // namespace

CoreResult core_forward(const Kernel& kernel, const CoreTokens& t) {
  const Call call(kernel, t);
  const Stored o = empty_tensor(shape_of(Output::o, call.inputs.shape, t.sequences()), kernel.contract.output);
  const Stored state = empty_state(kernel, t);
  const std::size_t bytes = kernel.workspace_bytes(call.inputs, false);
  const Memory workspace = memory_of(bytes);
  kernel.forward(call.inputs, {.o = o.view, .final_state = state.view}, {workspace.get(), bytes});
  return {loaded(o.view), loaded_state(kernel, t, state.view)};
}

CoreGradients core_backward(const Kernel& kernel, const CoreTokens& t, std::span<const float> d_o, std::span<const float> d_state) {
  if (!kernel.backward) throw std::invalid_argument("the kernel " + kernel.name + " has no backward pass");
  const Call call(kernel, t);
  const Contract& contract = kernel.contract;
  const Stored o = stored(d_o, shape_of(Output::o, call.inputs.shape, t.sequences()), contract.output);
  Cotangents cotangents{.d_o = o.view, .d_final_state = {}};
  std::vector<float> state;
  Stored d_final;
  if (!d_state.empty()) {
    if (contract.state_v_first) state = turned(d_state, t.K, t.V);
    d_final = stored(contract.state_v_first ? std::span<const float>(state) : d_state, {t.sequences(), t.HV, t.K, t.V}, Format::fp32);
    cotangents.d_final_state = contract.state_v_first ? Call::v_first(d_final.view) : d_final.view;
  }
  GradientOutputs gradients;
  std::vector<Stored> written;
  for (Input input : {Input::q, Input::k, Input::v, Input::g, Input::beta}) {
    written.push_back(empty_tensor(shape_of(input, call.inputs.shape, t.sequences()), contract.gradient));
    gradients[input] = written.back().view;
  }
  Stored d_initial;
  if (!t.state.empty()) gradients[Input::initial_state] = (d_initial = empty_state(kernel, t)).view;
  const std::size_t bytes = kernel.workspace_bytes(call.inputs, true);
  const Memory workspace = memory_of(bytes);
  kernel.backward(call.inputs, cotangents, gradients, {workspace.get(), bytes});
  CoreGradients d{loaded(gradients[Input::q]), loaded(gradients[Input::k]),    loaded(gradients[Input::v]),
                  loaded(gradients[Input::g]), loaded(gradients[Input::beta]), {}};
  if (!t.state.empty()) d.state = loaded_state(kernel, t, d_initial.view);
  if (t.normalise && !contract.l2norm_inside) {
    unit_rows_backward(t.q, call.q, t.K, d.q);
    unit_rows_backward(t.k, call.k, t.K, d.k);
  }
  return d;
}

} // namespace kdacheck::modules
