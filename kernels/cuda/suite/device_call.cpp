#include "device_call.hpp"

#include <atomic>
#include <cuda_runtime_api.h>

namespace kdacheck::cuda {
namespace {

int cuda_format(Format format) {
  if (format == Format::bf16) return KDACHECK_CUDA_BF16;
  return format == Format::fp16 ? KDACHECK_CUDA_FP16 : KDACHECK_CUDA_FP32;
}

} // namespace

void refuse_unless_ok(const kdacheck_cuda_result& result) {
  if (result.status != KDACHECK_CUDA_OK) throw Refused(result.text);
}

DeviceCall::DeviceCall(const Inputs& inputs, bool own_state) : in(inputs) {
  for (Input input : all_inputs)
    if (!(own_state && input == Input::initial_state)) twins[static_cast<std::size_t>(input)] = mirror(name(input), in[input], true);
  if (!in.cu_seqlens.empty()) lengths = buffers.add("cu_seqlens", in.cu_seqlens.size_bytes(), in.cu_seqlens.data());
}

Twin DeviceCall::mirror(std::string_view name, const TensorView& view, bool input) {
  if (!view) return {};
  if (view.elements() > 0 && view.stride != contiguous_strides(view.shape)) throw Refused(std::string(name) + ": must be dense");
  const std::size_t bytes = static_cast<std::size_t>(view.elements()) * storage_bytes(view.format);
  return {buffers.add(std::string(name), bytes, input ? view.data : nullptr), true, view.format};
}

void DeviceCall::place() {
  static std::atomic<unsigned> calls{0};
  buffers.place(calls++ % 2 == 0 ? 0xff : 0x7b); // NaN, or large numbers
}

kdacheck_cuda_tensor DeviceCall::tensor(const Twin& twin) const {
  return twin.present ? kdacheck_cuda_tensor{buffers[twin.index], cuda_format(twin.format), {}} : kdacheck_cuda_tensor{};
}

kdacheck_cuda_problem DeviceCall::problem(bool v_first) const {
  const Shape& s = in.shape;
  const auto input = [&](Input which) { return tensor(twins[static_cast<std::size_t>(which)]); };
  const auto parameters = [&](Input which) { return static_cast<const float*>(input(which).data); };
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
  problem.A_log = parameters(Input::A_log), problem.dt_bias = parameters(Input::dt_bias);
  problem.initial_state = parameters(Input::initial_state);
  if (!in.cu_seqlens.empty()) {
    problem.cu_seqlens = static_cast<const std::int64_t*>(buffers[lengths]);
    problem.cu_seqlens_host = in.cu_seqlens.data();
    problem.sequences = in.N();
  }
  return problem;
}

void DeviceCall::finish(std::size_t changing) const {
  if (const cudaError_t error = cudaDeviceSynchronize(); error != cudaSuccess)
    throw std::runtime_error(std::string("CUDA: the kernel failed: ") + cudaGetErrorString(error));
  buffers.verify(changing);
}

} // namespace kdacheck::cuda
