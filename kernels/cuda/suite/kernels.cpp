#include "kernels.hpp"

#include "../host/contracts.hpp"
#include "device_call.hpp"

namespace kdacheck {

using namespace cuda::contracts;

namespace {

void forward(int kernel, bool v_first, const Inputs& in, const Outputs& out) {
  const bool decode = kernel == KDACHECK_CUDA_DECODE;
  cuda::DeviceCall call(in, decode);
  const cuda::Twin o = call.mirror("o", out.o, false);
  const cuda::Twin final_state = decode ? cuda::Twin{} : call.mirror("final_state", out.final_state, false);
  const Shape& s = in.shape;
  const std::size_t state_bytes = static_cast<std::size_t>(in.N() * s.HV * s.K * s.V) * sizeof(float);
  const std::vector<std::byte> zero_state(decode && !in[Input::initial_state] ? state_bytes : 0);
  const std::size_t state =
      decode ? call.buffers.add("state", state_bytes, in[Input::initial_state] ? in[Input::initial_state].data : zero_state.data()) : 0;
  const auto posed = [&] {
    kdacheck_cuda_problem problem = call.problem(v_first);
    problem.o = call.tensor(o);
    problem.final_state = call.numbers(final_state);
    if (decode) problem.state = static_cast<float*>(call.buffers[state]), problem.slots = in.N();
    return problem;
  };
  // The size of the workspace depends on what is present, not on where it will lie.
  const kdacheck_cuda_problem unplaced = posed();
  std::size_t bytes = 0;
  cuda::refuse_unless_ok(kdacheck_cuda_workspace_bytes(kernel, &unplaced, &bytes));
  const std::size_t workspace = call.buffers.add("workspace", bytes, nullptr);
  call.place();
  const kdacheck_cuda_problem problem = posed();
  cuda::refuse_unless_ok(kdacheck_cuda_forward(kernel, &problem, call.buffers[workspace], bytes, nullptr));
  call.finish(decode ? state : static_cast<std::size_t>(-1));
  call.buffers.read(o.index, out.o.data);
  if (out.final_state) call.buffers.read(decode ? state : final_state.index, out.final_state.data);
}

void backward(int kernel, bool v_first, const Inputs& in, const Cotangents& cotangents, const GradientOutputs& out) {
  cuda::DeviceCall call(in, false);
  const cuda::Twin d_o = call.mirror("d_o", cotangents.d_o, true), d_state = call.mirror("d_final_state", cotangents.d_final_state, true);
  std::array<cuda::Twin, all_inputs.size()> twins;
  const auto of = [&](Input input) -> cuda::Twin& { return twins[static_cast<std::size_t>(input)]; };
  for (Input input : all_inputs) of(input) = call.mirror("d " + std::string(name(input)), out[input], false);
  const kdacheck_cuda_problem unplaced = call.problem(v_first); // as in forward()
  std::size_t bytes = 0;
  cuda::refuse_unless_ok(kdacheck_cuda_backward_workspace_bytes(kernel, &unplaced, &bytes));
  const std::size_t workspace = call.buffers.add("workspace", bytes, nullptr);
  call.place();
  const kdacheck_cuda_problem problem = call.problem(v_first);
  kdacheck_cuda_gradients gradients{};
  gradients.d_o = call.tensor(d_o);
  gradients.d_final_state = call.numbers(d_state);
  gradients.dq = call.tensor(of(Input::q)), gradients.dk = call.tensor(of(Input::k)), gradients.dv = call.tensor(of(Input::v));
  gradients.dg = call.tensor(of(Input::g)), gradients.dbeta = call.tensor(of(Input::beta));
  gradients.da = call.tensor(of(Input::a)), gradients.db = call.tensor(of(Input::b));
  gradients.d_A_log = call.numbers(of(Input::A_log)), gradients.d_dt_bias = call.numbers(of(Input::dt_bias));
  gradients.d_initial_state = call.numbers(of(Input::initial_state));
  if (in.shape.T == 0) gradients.dq = gradients.dk = gradients.dv = gradients.dg = gradients.dbeta = gradients.da = gradients.db = {};
  cuda::refuse_unless_ok(kdacheck_cuda_backward(kernel, &problem, &gradients, call.buffers[workspace], bytes, nullptr));
  call.finish();
  for (Input input : all_inputs)
    if (of(input).present) call.buffers.read(of(input).index, out[input].data);
}

/// `both`: with a backward pass.
Kernel make(std::string name, std::string summary, int kernel, Contract contract, bool both = false) {
  const bool v_first = contract.state_v_first;
  Kernel made{
      .name = std::move(name),
      .summary = std::move(summary),
      .contract = std::move(contract),
      .workspace_bytes = [](const Inputs&, bool) { return std::size_t{0}; },
      .forward = [kernel, v_first](const Inputs& in, const Outputs& out, std::span<std::byte>) { forward(kernel, v_first, in, out); },
      .backward = {}};
  if (both)
    made.backward = [kernel, v_first](const Inputs& in, const Cotangents& cotangents, const GradientOutputs& out, std::span<std::byte>) {
      backward(kernel, v_first, in, cotangents, out);
    };
  return made;
}

} // namespace

std::string cuda_kernels_absent() {
  const kdacheck_cuda_result result = kdacheck_cuda_device();
  return result.status == KDACHECK_CUDA_OK ? std::string() : std::string("not run: no GPU: ") + result.text;
}

void append_cuda_kernels(std::vector<Kernel>& kernels) {
  if (!cuda_kernels_absent().empty()) return;
  kernels.push_back(make("cuda.recurrence.fp32", "token by token in fp32", KDACHECK_CUDA_RECURRENCE, recurrence_contract(false), true));
  kernels.push_back(make("cuda.recurrence.fp32.v_first", "token by token in fp32, states V-first", KDACHECK_CUDA_RECURRENCE,
                         recurrence_contract(true), true));
  kernels.push_back(make("cuda.decode.fp32", "1 to 8 tokens, fp32 state in place", KDACHECK_CUDA_DECODE, decode_contract()));
  for (Format input : {Format::bf16, Format::fp16})
    for (bool accurate : {false, true}) {
      const int kernel = accurate ? KDACHECK_CUDA_CHUNK_ACCURATE : KDACHECK_CUDA_CHUNK_FAST;
      const std::string tier = std::string(accurate ? "accurate." : "fast.") + std::string(name(input));
      kernels.push_back(make("cuda.chunk16." + tier, accurate ? "chunks of 16, operands of 11 bits or more" : "chunks of 16, bf16 operands",
                             kernel, chunk_contract(input, accurate)));
      kernels.push_back(make("cuda.segment64." + tier, "forward as chunk16, backward over segments of 64", kernel,
                             segment_contract(input, accurate), true));
    }
  for (Format input : {Format::bf16, Format::fp16})
    kernels.push_back(make("cuda.dplr_chunk16.fast." + std::string(name(input)), "general DPLR in chunks of 16, bf16 operands",
                           KDACHECK_CUDA_CHUNK_FAST, general_contract(input), true));
}

} // namespace kdacheck
