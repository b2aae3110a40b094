#include "kernels.hpp"

#include "device_buffers.hpp"
#include "kdacheck_cuda.h"

#include <atomic>
#include <cuda_runtime_api.h>

namespace kdacheck {
namespace {

int cuda_format(Format format) {
  if (format == Format::bf16) return KDACHECK_CUDA_BF16;
  return format == Format::fp16 ? KDACHECK_CUDA_FP16 : KDACHECK_CUDA_FP32;
}

/// One host view's device twin.
struct Twin {
  std::size_t index = 0;
  bool present = false;
  Format format = Format::fp32;
};

Twin mirror(cuda::DeviceBuffers& buffers, std::string_view name, const TensorView& view, bool input) {
  if (!view) return {};
  if (view.elements() > 0 && view.stride != contiguous_strides(view.shape)) throw Refused(std::string(name) + ": must be dense");
  const std::size_t bytes = static_cast<std::size_t>(view.elements()) * storage_bytes(view.format);
  return {buffers.add(std::string(name), bytes, input ? view.data : nullptr), true, view.format};
}

void refuse_unless_ok(const kdacheck_cuda_result& result) {
  if (result.status != KDACHECK_CUDA_OK) throw Refused(result.text);
}

void forward(int kernel, bool v_first, const Inputs& in, const Outputs& out) {
  static std::atomic<unsigned> calls{0};
  const bool decode = kernel == KDACHECK_CUDA_DECODE;
  cuda::DeviceBuffers buffers;
  std::array<Twin, all_inputs.size()> twins;
  for (Input input : all_inputs)
    if (!(decode && input == Input::initial_state)) twins[static_cast<std::size_t>(input)] = mirror(buffers, name(input), in[input], true);
  const Twin o = mirror(buffers, "o", out.o, false);
  const Twin final_state = decode ? Twin{} : mirror(buffers, "final_state", out.final_state, false);
  const Shape& s = in.shape;
  const std::size_t state_bytes = static_cast<std::size_t>(in.N() * s.HV * s.K * s.V) * sizeof(float);
  const std::vector<std::byte> zero_state(decode && !in[Input::initial_state] ? state_bytes : 0);
  const std::size_t state =
      decode ? buffers.add("state", state_bytes, in[Input::initial_state] ? in[Input::initial_state].data : zero_state.data()) : 0;
  const std::size_t lengths = in.cu_seqlens.empty() ? 0 : buffers.add("cu_seqlens", in.cu_seqlens.size_bytes(), in.cu_seqlens.data());
  buffers.place(calls++ % 2 == 0 ? 0xff : 0x7b); // NaN, or large numbers

  const auto tensor = [&](const Twin& twin) {
    return twin.present ? kdacheck_cuda_tensor{buffers[twin.index], cuda_format(twin.format), {}} : kdacheck_cuda_tensor{};
  };
  const auto input = [&](Input which) { return tensor(twins[static_cast<std::size_t>(which)]); };
  const auto numbers = [&](Input which) { return static_cast<const float*>(input(which).data); };
  kdacheck_cuda_problem problem{};
  problem.B = s.B, problem.T = s.T, problem.H = s.H, problem.HV = s.HV, problem.K = s.K, problem.V = s.V;
  problem.rule = in.options.rule == Rule::kda ? KDACHECK_CUDA_KDA : KDACHECK_CUDA_DPLR;
  problem.gate = static_cast<int>(in.options.gate); // the same order
  problem.beta_form = static_cast<int>(in.options.beta);
  problem.l2norm = in.options.l2norm;
  problem.state_v_first = v_first;
  problem.lower_bound = in.options.lower_bound;
  problem.scale = in.options.scale;
  problem.q = input(Input::q), problem.k = input(Input::k), problem.v = input(Input::v), problem.g = input(Input::g);
  problem.beta = input(Input::beta), problem.a = input(Input::a), problem.b = input(Input::b);
  problem.A_log = numbers(Input::A_log), problem.dt_bias = numbers(Input::dt_bias), problem.initial_state = numbers(Input::initial_state);
  problem.o = tensor(o);
  problem.final_state = static_cast<float*>(tensor(final_state).data);
  if (!in.cu_seqlens.empty()) {
    problem.cu_seqlens = static_cast<const std::int64_t*>(buffers[lengths]);
    problem.cu_seqlens_host = in.cu_seqlens.data();
    problem.sequences = in.N();
  }
  if (decode) problem.state = static_cast<float*>(buffers[state]), problem.slots = in.N();
  refuse_unless_ok(kdacheck_cuda_forward(kernel, &problem, nullptr, 0, nullptr));
  if (const cudaError_t error = cudaDeviceSynchronize(); error != cudaSuccess)
    throw std::runtime_error(std::string("CUDA: the kernel failed: ") + cudaGetErrorString(error));
  buffers.verify(decode ? state : static_cast<std::size_t>(-1));
  buffers.read(o.index, out.o.data);
  if (out.final_state) buffers.read(decode ? state : final_state.index, out.final_state.data);
}

Kernel make(std::string name, std::string summary, int kernel, Contract contract) {
  const bool v_first = contract.state_v_first;
  return {.name = std::move(name),
          .summary = std::move(summary),
          .contract = std::move(contract),
          .workspace_bytes = [](const Inputs&, bool) { return std::size_t{0}; },
          .forward = [kernel, v_first](const Inputs& in, const Outputs& out, std::span<std::byte>) { forward(kernel, v_first, in, out); },
          .backward = {}};
}

const std::vector<GateForm> all_gates{GateForm::log_decay, GateForm::softplus, GateForm::bounded, GateForm::sigmoid, GateForm::absent};
const std::vector<BetaForm> all_betas{BetaForm::value, BetaForm::sigmoid, BetaForm::twice_sigmoid};

/// What all kernels here accept.
Contract wide_domain() {
  Contract contract;
  contract.gates = all_gates;
  contract.betas = all_betas;
  contract.l2norm_inside = true;
  contract.beta_min = -1;
  contract.beta_max = 2;
  return contract;
}

Contract recurrence_contract(bool v_first) {
  Contract contract = wide_domain();
  contract.order = Order::recurrence;
  contract.chunk = 1;
  contract.rules = {Rule::kda, Rule::dplr};
  contract.K = contract.V = {1, 256, 1};
  contract.k_norm_max = 4;
  contract.state_v_first = v_first;
  return contract;
}

/// Operands in two bf16 terms are declared as tf32, the nearest format that promises no more than they keep.
Contract chunk_contract(Format input, bool accurate) {
  Contract contract = wide_domain();
  contract.input = contract.output = input;
  contract.operands = contract.scores = accurate ? Format::tf32 : Format::bf16;
  contract.exp_ulp = 4; // 2^-22 relative
  contract.order = Order::residual_first;
  contract.chunk = 16;
  contract.K = {64, 128, 64};
  contract.V = {16, 256, 16};
  return contract;
}

Contract decode_contract() {
  Contract contract = recurrence_contract(false);
  contract.rules = {Rule::kda};
  contract.K = {16, 256, 16};
  contract.V = {4, 256, 4};
  contract.T = {1, 8, 1};
  contract.packed = false;
  return contract;
}

} // namespace

std::string cuda_kernels_absent() {
  const kdacheck_cuda_result result = kdacheck_cuda_device();
  return result.status == KDACHECK_CUDA_OK ? std::string() : std::string("not run: no GPU: ") + result.text;
}

void append_cuda_kernels(std::vector<Kernel>& kernels) {
  if (!cuda_kernels_absent().empty()) return;
  kernels.push_back(make("cuda.recurrence.fp32", "token by token in fp32", KDACHECK_CUDA_RECURRENCE, recurrence_contract(false)));
  kernels.push_back(
      make("cuda.recurrence.fp32.v_first", "token by token in fp32, states V-first", KDACHECK_CUDA_RECURRENCE, recurrence_contract(true)));
  kernels.push_back(make("cuda.decode.fp32", "1 to 8 tokens, fp32 state in place", KDACHECK_CUDA_DECODE, decode_contract()));
  for (Format input : {Format::bf16, Format::fp16})
    for (bool accurate : {false, true})
      kernels.push_back(make("cuda.chunk16." + std::string(accurate ? "accurate." : "fast.") + std::string(name(input)),
                             accurate ? "chunks of 16, operands in two bf16 terms" : "chunks of 16, bf16 operands",
                             accurate ? KDACHECK_CUDA_CHUNK_ACCURATE : KDACHECK_CUDA_CHUNK_FAST, chunk_contract(input, accurate)));
}

} // namespace kdacheck
