#include "run.hpp"

#include "../kernels/plugin/abandoned_calls.hpp"
#include "../kernels/plugin/broken_law.hpp"
#include "guarded_tensor.hpp"
#include "observed_calls.hpp"

#include <cstring>
#include <deque>
#include <functional>
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

Layout state_layout(const Contract& contract) { return contract.state_v_first ? Layout::v_first : Layout::dense; }

// Memory for everything that calls read, one problem after the other, with a copy to compare with afterwards.
class Arguments {
public:
  Arguments(const Contract& contract, const Problem& problem, const RunOptions& options)
      : lengths_(problem.cu_seqlens.size() * sizeof(std::int64_t), options.gap) {
    const std::int64_t N = sequence_count(problem);
    for (Input input : all_inputs)
      if (is_present(problem, input))
        inputs[input] =
            add({.tensor = make_guarded_tensor("input " + std::string(name(input)), shape_of(input, problem.shape, N), rank_of(input),
                                               format_of(input, input_formats(contract)), layout_of(input, contract, options), options.gap),
                 .values = [input](const Problem& of) { return std::span<const float>(of[input]); }});
  }

  void add_cotangents(const Contract& contract, const Problem& problem, const RunOptions& options) {
    const std::int64_t N = sequence_count(problem);
    if (!problem.d_o.empty())
      cotangents.d_o = add({.tensor = make_guarded_tensor("cotangent d_o", shape_of(Output::o, problem.shape, N), 4, contract.output,
                                                          options.strided ? Layout::spaced : Layout::dense, options.gap),
                            .values = [](const Problem& of) { return std::span<const float>(of.d_o); }});
    if (!problem.d_final_state.empty())
      cotangents.d_final_state =
          add({.tensor = make_guarded_tensor("cotangent d_final_state", shape_of(Output::final_state, problem.shape, N), 4, Format::fp32,
                                             state_layout(contract), options.gap),
               .values = [](const Problem& of) { return std::span<const float>(of.d_final_state); }});
  }

  void hold(const Problem& problem) {
    inputs.shape = problem.shape;
    inputs.options = problem.options;
    if (problem.cu_seqlens.size() * sizeof(std::int64_t) != lengths_.bytes()) throw std::invalid_argument("another number of sequences");
    if (!problem.cu_seqlens.empty()) {
      std::memcpy(lengths_.data(), problem.cu_seqlens.data(), lengths_.bytes());
      inputs.cu_seqlens = {reinterpret_cast<const std::int64_t*>(lengths_.data()), problem.cu_seqlens.size()};
    }
    for (Read& read : reads_) {
      write_elements(read.tensor, read.values(problem));
      read.before.assign(read.tensor.memory.data(), read.tensor.memory.data() + read.tensor.memory.bytes());
    }
  }

  void report(const Problem& problem, std::vector<std::string>& trespasses) const {
    for (const Read& read : reads_) {
      if (const auto change = change_since(read.tensor, read.before)) trespasses.push_back(*change);
      for (auto& sentence : read.tensor.memory.trespasses(read.tensor.label)) trespasses.push_back(std::move(sentence));
    }
    if (lengths_.bytes() && std::memcmp(lengths_.data(), problem.cu_seqlens.data(), lengths_.bytes()) != 0)
      trespasses.push_back("changed cu_seqlens");
    for (auto& sentence : lengths_.trespasses("cu_seqlens")) trespasses.push_back(std::move(sentence));
  }

  Inputs inputs;
  Cotangents cotangents;

private:
  struct Read {
    GuardedTensor tensor;
    std::function<std::span<const float>(const Problem&)> values;
    std::vector<std::byte> before{};
  };

  TensorView add(Read read) {
    reads_.push_back(std::move(read));
    return reads_.back().tensor.view;
  }

  std::deque<Read> reads_;
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

Format gradient_format(Input input, const Contract& contract) {
  const bool parameter = input == Input::A_log || input == Input::dt_bias || input == Input::initial_state;
  return parameter ? Format::fp32 : contract.gradient;
}

void expect_alike(std::span<const Problem> problems) {
  for (const Problem& problem : problems) {
    bool alike = problem.shape == problems[0].shape && problem.cu_seqlens.size() == problems[0].cu_seqlens.size() &&
                 problem.d_o.size() == problems[0].d_o.size() && problem.d_final_state.size() == problems[0].d_final_state.size();
    for (Input input : all_inputs) alike = alike && is_present(problem, input) == is_present(problems[0], input);
    if (!alike) throw std::invalid_argument("problems of other sizes or tensors cannot take turns in the same memory");
  }
}

} // namespace

std::vector<Run> run_forward_in_turn(const Kernel& kernel, std::span<const Problem> problems, const RunOptions& options) {
  expect_alike(problems);
  if (problems.empty()) return {};
  const Contract& contract = kernel.contract;
  const Problem& first = problems[0];
  const std::int64_t N = sequence_count(first);
  Arguments arguments(contract, first, options);
  const GuardedTensor o = output_tensor("o", shape_of(Output::o, first.shape, N), 4, contract.output, Layout::dense, options);
  const GuardedTensor state =
      output_tensor("final_state", shape_of(Output::final_state, first.shape, N), 4, Format::fp32, state_layout(contract), options);
  const Outputs outputs{o.view, options.final_state ? state.view : TensorView{}};
  std::vector<Run> runs;
  for (const Problem& problem : problems) {
    Run& run = runs.emplace_back();
    arguments.hold(problem);
    poison(o, options.poison);
    poison(state, options.poison);
    call_guarded(kernel, arguments.inputs, false, options, run,
                 [&](std::span<std::byte> workspace) { kernel.forward(arguments.inputs, outputs, workspace); });
    arguments.report(problem, run.trespasses);
    run.o = collect(o, options, run);
    if (options.final_state) run.final_state = collect(state, options, run);
    observe(Pass::forward, problem, options, run);
  }
  return runs;
}

Run run_forward(const Kernel& kernel, const Problem& problem, const RunOptions& options) {
  return std::move(run_forward_in_turn(kernel, {&problem, 1}, options).front());
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
  arguments.hold(tokens);
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

std::vector<Run> run_backward_in_turn(const Kernel& kernel, std::span<const Problem> problems, const RunOptions& options) {
  if (!kernel.backward) throw std::logic_error(kernel.name + " has no backward pass");
  expect_alike(problems);
  if (problems.empty()) return {};
  const Contract& contract = kernel.contract;
  const Problem& first = problems[0];
  const std::int64_t N = sequence_count(first);
  Arguments arguments(contract, first, options);
  arguments.add_cotangents(contract, first, options);
  GradientOutputs gradients;
  std::deque<std::pair<Input, GuardedTensor>> results;
  for (Input input : all_inputs) {
    const bool one_a_head = contract.decay_per_head && (input == Input::g || input == Input::dt_bias);
    if (!is_present(first, input) || one_a_head || options.not_wanted[static_cast<std::size_t>(input)]) continue;
    const Layout layout = input == Input::initial_state ? state_layout(contract) : Layout::dense;
    results.emplace_back(input, output_tensor("d" + std::string(name(input)), shape_of(input, first.shape, N), rank_of(input),
                                              gradient_format(input, contract), layout, options));
    gradients[input] = results.back().second.view;
  }
  std::vector<Run> runs;
  for (const Problem& problem : problems) {
    Run& run = runs.emplace_back();
    arguments.hold(problem);
    for (const auto& [input, tensor] : results) poison(tensor, options.poison);
    call_guarded(kernel, arguments.inputs, true, options, run,
                 [&](std::span<std::byte> workspace) { kernel.backward(arguments.inputs, arguments.cotangents, gradients, workspace); });
    arguments.report(problem, run.trespasses);
    for (const auto& [input, tensor] : results) run.gradient[static_cast<std::size_t>(input)] = collect(tensor, options, run);
    observe(Pass::backward, problem, options, run);
  }
  return runs;
}

Run run_backward(const Kernel& kernel, const Problem& problem, const RunOptions& options) {
  return std::move(run_backward_in_turn(kernel, {&problem, 1}, options).front());
}

} // namespace kdacheck
