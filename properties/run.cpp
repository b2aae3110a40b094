#include "run.hpp"

#include "../kernels/plugin/abandoned_calls.hpp"
#include "../kernels/plugin/broken_law.hpp"
#include "guarded_tensor.hpp"
#include "observed_calls.hpp"

#include <cstring>
#include <deque>
#include <stdexcept>

namespace kdacheck {
namespace {

// A problem of no tokens has empty tensors that are there all the same.
bool is_present(const Problem& problem, Input input) {
  const Options& options = problem.options;
  switch (input) {
  case Input::q:
  case Input::k:
  case Input::v: return true;
  case Input::g: return options.gate != GateForm::absent;
  case Input::beta: return options.rule == Rule::kda;
  case Input::a:
  case Input::b: return options.rule == Rule::dplr;
  default: return !problem[input].empty();
  }
}

Layout layout_of(Input input, const Contract& contract, const RunOptions& options) {
  if (input == Input::initial_state) return contract.state_v_first ? Layout::v_first : Layout::dense;
  const bool may_have_gaps = input != Input::A_log && input != Input::dt_bias;
  return options.strided && may_have_gaps ? Layout::spaced : Layout::dense;
}

// Everything a call reads, with a copy to compare with afterwards.
class Arguments {
public:
  Arguments(const Contract& contract, const Problem& problem, const RunOptions& options)
      : lengths_(problem.cu_seqlens.size() * sizeof(std::int64_t), options.gap) {
    inputs.shape = problem.shape;
    inputs.options = problem.options;
    const std::int64_t N = sequence_count(problem);
    for (Input input : all_inputs)
      if (is_present(problem, input))
        inputs[input] = add("input " + std::string(name(input)), problem[input], shape_of(input, problem.shape, N), rank_of(input),
                            format_of(input, input_formats(contract)), layout_of(input, contract, options), options.gap);
    if (!problem.cu_seqlens.empty()) {
      std::memcpy(lengths_.data(), problem.cu_seqlens.data(), lengths_.bytes());
      inputs.cu_seqlens = {reinterpret_cast<const std::int64_t*>(lengths_.data()), problem.cu_seqlens.size()};
    }
  }

  TensorView add(std::string label, const std::vector<float>& values, std::array<std::int64_t, 4> shape, std::size_t rank, Format format,
                 Layout layout, std::uint32_t gap) {
    const GuardedTensor& tensor = tensors_.emplace_back(make_guarded_tensor(std::move(label), shape, rank, format, layout, gap));
    write_elements(tensor, values);
    before_.emplace_back(tensor.memory.data(), tensor.memory.data() + tensor.memory.bytes());
    return tensor.view;
  }

  void report(const Problem& problem, std::vector<std::string>& trespasses) const {
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      if (const auto change = change_since(tensors_[i], before_[i])) trespasses.push_back(*change);
      for (auto& sentence : tensors_[i].memory.trespasses(tensors_[i].label)) trespasses.push_back(std::move(sentence));
    }
    if (lengths_.bytes() && std::memcmp(lengths_.data(), problem.cu_seqlens.data(), lengths_.bytes()) != 0)
      trespasses.push_back("changed cu_seqlens");
    for (auto& sentence : lengths_.trespasses("cu_seqlens")) trespasses.push_back(std::move(sentence));
  }

  Inputs inputs;

private:
  std::deque<GuardedTensor> tensors_;
  std::vector<std::vector<std::byte>> before_;
  GuardedBuffer lengths_;
};

// Runs `call(workspace)`; what it throws becomes the run's refusal.
template <class Call>
void call_guarded(const Kernel& kernel, const Inputs& inputs, bool backward, const RunOptions& options, Run& run, Call&& call) {
  try {
    const std::size_t bytes = kernel.workspace_bytes ? kernel.workspace_bytes(inputs, backward) : 0;
    const GuardedBuffer workspace(bytes, options.gap);
    const std::uint32_t word = options.workspace_poison.value_or(options.poison);
    workspace.fill((word >> 16) * 0x10001u); // a NaN whether the kernel takes it for 16 or 32 bits
    try {
      call(std::span(workspace.data(), bytes));
    } catch (...) {
      run.trespasses = workspace.trespasses("the workspace");
      throw;
    }
    run.trespasses = workspace.trespasses("the workspace");
  } catch (const KernelCrashed&) {
    throw;
  } catch (const KernelTimedOut&) {
    throw;
  } catch (const KernelBrokeLaw&) {
    throw;
  } catch (const CallAbandoned&) {
    throw;
  } catch (const KernelTrespassed& trespass) {
    run.trespasses.push_back(trespass.what());
  } catch (const Refused& refusal) {
    run.refused = refusal.what();
  } catch (const std::exception& error) {
    run.refused = std::string("threw: ") + error.what();
  } catch (...) {
    run.refused = "threw: something that is no std::exception";
  }
}

GuardedTensor output_tensor(std::string label, std::array<std::int64_t, 4> shape, std::size_t rank, Format format, Layout layout,
                            const RunOptions& options) {
  GuardedTensor tensor = make_guarded_tensor(std::move(label), shape, rank, format, layout, options.gap);
  poison(tensor, options.poison);
  return tensor;
}

// Reads a result back; after a refusal nothing may have been written.
std::vector<float> collect(const GuardedTensor& tensor, const RunOptions& options, Run& run) {
  for (auto& sentence : tensor.memory.trespasses(tensor.label)) run.trespasses.push_back(std::move(sentence));
  if (!run.refused) return read_elements(tensor);
  const std::vector<std::byte> now(tensor.memory.data(), tensor.memory.data() + tensor.memory.bytes());
  poison(tensor, options.poison);
  if (now != std::vector<std::byte>(tensor.memory.data(), tensor.memory.data() + tensor.memory.bytes()))
    run.trespasses.push_back("refused the call but wrote to " + tensor.label);
  return {};
}

Layout state_layout(const Contract& contract) { return contract.state_v_first ? Layout::v_first : Layout::dense; }

Format gradient_format(Input input, const Contract& contract) {
  const bool parameter = input == Input::A_log || input == Input::dt_bias || input == Input::initial_state;
  return parameter ? Format::fp32 : contract.gradient;
}

} // namespace

Run run_forward(const Kernel& kernel, const Problem& problem, const RunOptions& options) {
  const Contract& contract = kernel.contract;
  const std::int64_t N = sequence_count(problem);
  Arguments arguments(contract, problem, options);
  const GuardedTensor o = output_tensor("o", shape_of(Output::o, problem.shape, N), 4, contract.output, Layout::dense, options);
  const GuardedTensor state =
      output_tensor("final_state", shape_of(Output::final_state, problem.shape, N), 4, Format::fp32, state_layout(contract), options);
  Run run;
  const Outputs outputs{o.view, options.final_state ? state.view : TensorView{}};
  call_guarded(kernel, arguments.inputs, false, options, run,
               [&](std::span<std::byte> workspace) { kernel.forward(arguments.inputs, outputs, workspace); });
  arguments.report(problem, run.trespasses);
  run.o = collect(o, options, run);
  if (options.final_state) run.final_state = collect(state, options, run);
  observe(Pass::forward, problem, options, run);
  return run;
}

Run run_decode(const Kernel& kernel, const Problem& problem, const RunOptions& options) {
  if (!kernel.decode) throw std::logic_error(kernel.name + " has no decode step");
  if (!problem.cu_seqlens.empty()) throw std::logic_error("a decode step takes no packed sequences");
  const Contract& contract = kernel.contract;
  const std::int64_t N = sequence_count(problem);
  const auto state_shape = shape_of(Output::final_state, problem.shape, N);
  Problem tokens = problem;
  tokens.initial_state.clear();
  Arguments arguments(contract, tokens, options);
  const GuardedTensor state = make_guarded_tensor("the state", state_shape, 4, Format::fp32, state_layout(contract), options.gap);
  const auto size = static_cast<std::size_t>(state_shape[0] * state_shape[1] * state_shape[2] * state_shape[3]);
  write_elements(state, problem.initial_state.empty() ? std::vector<float>(size, 0.0f) : problem.initial_state);
  const std::vector<std::byte> before(state.memory.data(), state.memory.data() + state.memory.bytes());
  const GuardedTensor o = output_tensor("o", shape_of(Output::o, problem.shape, N), 4, contract.output, Layout::dense, options);
  arguments.inputs[Input::initial_state] = state.view;
  Run run;
  call_guarded(kernel, arguments.inputs, false, options, run, [&](std::span<std::byte> workspace) {
    kernel.decode(arguments.inputs, {.o = o.view, .final_state = state.view}, workspace);
  });
  arguments.report(tokens, run.trespasses);
  for (auto& sentence : state.memory.trespasses(state.label)) run.trespasses.push_back(std::move(sentence));
  run.o = collect(o, options, run);
  if (!run.refused)
    run.final_state = read_elements(state);
  else if (change_since(state, before))
    run.trespasses.push_back("refused the call but wrote to the state");
  observe(Pass::decode, problem, options, run);
  return run;
}

Run run_backward(const Kernel& kernel, const Problem& problem, const RunOptions& options) {
  if (!kernel.backward) throw std::logic_error(kernel.name + " has no backward pass");
  const Contract& contract = kernel.contract;
  const std::int64_t N = sequence_count(problem);
  Arguments arguments(contract, problem, options);
  Cotangents cotangents;
  if (!problem.d_o.empty())
    cotangents.d_o =
        arguments.add("cotangent d_o", problem.d_o, shape_of(Output::o, problem.shape, N), 4, contract.output, Layout::dense, options.gap);
  if (!problem.d_final_state.empty())
    cotangents.d_final_state =
        arguments.add("cotangent d_final_state", problem.d_final_state, shape_of(Output::final_state, problem.shape, N), 4, Format::fp32,
                      state_layout(contract), options.gap);
  GradientOutputs gradients;
  std::deque<std::pair<Input, GuardedTensor>> results;
  for (Input input : all_inputs) {
    const bool one_a_head = contract.decay_per_head && (input == Input::g || input == Input::dt_bias);
    if (!is_present(problem, input) || one_a_head) continue;
    const Layout layout = input == Input::initial_state ? state_layout(contract) : Layout::dense;
    results.emplace_back(input, output_tensor("d" + std::string(name(input)), shape_of(input, problem.shape, N), rank_of(input),
                                              gradient_format(input, contract), layout, options));
    gradients[input] = results.back().second.view;
  }
  Run run;
  call_guarded(kernel, arguments.inputs, true, options, run,
               [&](std::span<std::byte> workspace) { kernel.backward(arguments.inputs, cotangents, gradients, workspace); });
  arguments.report(problem, run.trespasses);
  for (const auto& [input, tensor] : results) run.gradient[static_cast<std::size_t>(input)] = collect(tensor, options, run);
  observe(Pass::backward, problem, options, run);
  return run;
}

} // namespace kdacheck
