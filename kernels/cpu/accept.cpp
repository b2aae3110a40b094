#include "accept.hpp"

#include <algorithm>
#include <string>

namespace kdacheck::cpu {
namespace {

[[noreturn]] void refuse(const std::string& sentence) { throw Refused(sentence); }

template <class Enum> bool holds(const std::vector<Enum>& list, Enum value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

std::array<std::int64_t, 4> state_shape(const Contract& contract, const Inputs& inputs) {
  const Shape& s = inputs.shape;
  if (contract.state_v_first) return {inputs.N(), s.HV, s.V, s.K};
  return {inputs.N(), s.HV, s.K, s.V};
}

/// Shape, unit last stride and memory of a tensor that is present.
void check_view(const std::string& label, const TensorView& view, const std::array<std::int64_t, 4>& shape) {
  if (view.shape != shape) refuse(label + " does not have the shape that the sizes ask for");
  if (view.elements() > 0 && shape[3] > 1 && view.stride[3] != 1) refuse(label + " is not contiguous in its last dimension");
}

void check_format(const std::string& label, const TensorView& view, Format format) {
  if (view.format != format) refuse(label + " is " + std::string(name(view.format)) + ", the contract says " + std::string(name(format)));
}

bool parametric(const Options& options) { return options.gate == GateForm::softplus || options.gate == GateForm::bounded; }

bool needed(Input input, const Options& options) {
  switch (input) {
  case Input::g: return options.gate != GateForm::absent;
  case Input::beta: return options.rule == Rule::kda;
  case Input::a:
  case Input::b: return options.rule == Rule::dplr;
  case Input::A_log: return parametric(options);
  case Input::dt_bias:
  case Input::initial_state: return false;
  default: return true;
  }
}

void check_sequences(const Inputs& inputs) {
  const auto& cu = inputs.cu_seqlens;
  if (cu.empty()) return;
  if (inputs.shape.B != 1) refuse("packed sequences need B = 1");
  if (cu.size() < 2 || cu.front() != 0 || cu.back() != inputs.shape.T || !std::is_sorted(cu.begin(), cu.end()))
    refuse("cu_seqlens must rise from 0 to T");
}

} // namespace

void accept(const Contract& contract, const Inputs& inputs) {
  const Shape& s = inputs.shape;
  const Options& options = inputs.options;
  if (!holds(contract.rules, options.rule)) refuse("rule " + std::string(name(options.rule)) + " is not offered");
  if (!holds(contract.gates, options.gate)) refuse("gate form " + std::string(name(options.gate)) + " is not offered");
  if (options.rule == Rule::kda && !holds(contract.betas, options.beta))
    refuse("beta form " + std::string(name(options.beta)) + " is not offered");
  if (options.l2norm ? !contract.l2norm_inside : !contract.l2norm_outside) refuse("this place of the l2norm is not offered");
  if (s.B < 1 || s.T < 0 || s.H < 1 || s.HV < 1 || s.HV % s.H != 0) refuse("HV must be a multiple of H, and no size be zero but T");
  if (!contract.K.contains(s.K)) refuse("K=" + std::to_string(s.K) + " is not offered");
  if (!contract.V.contains(s.V)) refuse("V=" + std::to_string(s.V) + " is not offered");
  if (!contract.T.contains(s.T)) refuse("T=" + std::to_string(s.T) + " is not offered");
  if (!contract.grouped && s.HV != s.H) refuse("grouped value heads are not offered");
  if (!contract.packed && !inputs.cu_seqlens.empty()) refuse("packed sequences are not offered");
  check_sequences(inputs);
  const InputFormats formats = input_formats(contract);
  const auto N = inputs.N();
  for (Input input : all_inputs) {
    const TensorView& view = inputs[input];
    const std::string label(name(input));
    const auto shape = input == Input::initial_state ? state_shape(contract, inputs) : shape_of(input, s, N);
    const bool empty = shape[0] * shape[1] * shape[2] * shape[3] == 0;
    if (!view) {
      if (needed(input, options) && !empty) refuse(label + " is missing");
      continue;
    }
    if (input == Input::initial_state && !contract.initial_state) refuse("an initial state is not offered");
    check_view(label, view, shape);
    check_format(label, view, format_of(input, formats));
  }
}

void accept(const Contract& contract, const Inputs& inputs, const Outputs& outputs) {
  accept(contract, inputs);
  if (!outputs.o && inputs.shape.T > 0) refuse("o is missing");
  if (outputs.o) {
    check_view("o", outputs.o, shape_of(Output::o, inputs.shape, inputs.N()));
    check_format("o", outputs.o, contract.output);
  }
  if (outputs.final_state) {
    check_view("final_state", outputs.final_state, state_shape(contract, inputs));
    check_format("final_state", outputs.final_state, Format::fp32);
  }
}

void accept(const Contract& contract, const Inputs& inputs, const Cotangents& cotangents, const GradientOutputs& gradients) {
  accept(contract, inputs);
  if (cotangents.d_o) {
    check_view("d_o", cotangents.d_o, shape_of(Output::o, inputs.shape, inputs.N()));
    check_format("d_o", cotangents.d_o, contract.output);
  }
  if (cotangents.d_final_state) {
    check_view("d_final_state", cotangents.d_final_state, state_shape(contract, inputs));
    check_format("d_final_state", cotangents.d_final_state, Format::fp32);
  }
  for (Input input : all_inputs) {
    const TensorView& view = gradients[input];
    if (!view) continue;
    const auto shape = input == Input::initial_state ? state_shape(contract, inputs) : shape_of(input, inputs.shape, inputs.N());
    check_view("d " + std::string(name(input)), view, shape);
  }
}

} // namespace kdacheck::cpu
