#include "check.hpp"

#include <array>
#include <cmath>
#include <string>

namespace kdacheck::cuda {
namespace {

kdacheck_cuda_result check_options(const kdacheck_cuda_gates_call& p) {
  if (p.B < 1 || p.HV < 1 || p.T < 0) return refuse(KDACHECK_CUDA_BAD_SHAPE, "B and HV must be at least 1 and T at least 0");
  if (p.T >= std::int64_t{1} << 31) return refuse(KDACHECK_CUDA_BAD_SHAPE, "T must be less than 2^31");
  if (p.HV > 1 << 20) return refuse(KDACHECK_CUDA_BAD_SHAPE, "HV must be at most 2^20");
  if (p.K < 1 || p.K > 256) return refuse(KDACHECK_CUDA_BAD_SHAPE, "K must lie in 1..256");
  if (p.chunk < 1 || p.chunk > 4096) return refuse(KDACHECK_CUDA_BAD_SHAPE, "chunk must lie in 1..4096");
  if (p.gate < KDACHECK_CUDA_LOG_DECAY || p.gate >= KDACHECK_CUDA_NO_GATE)
    return refuse(KDACHECK_CUDA_BAD_OPTION, "gate is none of kdacheck_cuda_gate, or that of no gate");
  if (p.gate == KDACHECK_CUDA_BOUNDED && !(p.lower_bound <= 0 && std::isfinite(p.lower_bound)))
    return refuse(KDACHECK_CUDA_BAD_OPTION, "lower_bound must be a finite number <= 0");
  const bool parametric = p.gate == KDACHECK_CUDA_SOFTPLUS || p.gate == KDACHECK_CUDA_BOUNDED;
  if (parametric != (p.A_log != nullptr))
    return refuse(KDACHECK_CUDA_NULL_POINTER, parametric ? "A_log is a null pointer" : "A_log has no place with this gate");
  if (!parametric && p.dt_bias != nullptr) return refuse(KDACHECK_CUDA_NULL_POINTER, "dt_bias has no place with this gate");
  for (const void* pointer : std::array<const void*, 2>{p.A_log, p.dt_bias})
    if (reinterpret_cast<std::uintptr_t>(pointer) % 4 != 0)
      return refuse(KDACHECK_CUDA_BAD_LAYOUT, "A_log and dt_bias must be aligned to 4 bytes");
  return {};
}

} // namespace

CheckedGates check_gates(const kdacheck_cuda_gates_call* call) {
  CheckedGates checked;
  const auto refused = [&](const kdacheck_cuda_result& result) {
    checked.result = result;
    return result.status != KDACHECK_CUDA_OK;
  };
  if (call == nullptr) return refused(refuse(KDACHECK_CUDA_NULL_POINTER, "the call is a null pointer")), checked;
  const kdacheck_cuda_gates_call& p = *call;
  if (refused(check_options(p))) return checked;
  kdacheck_cuda_problem like{}; // what the checks of tensors and sequences look at
  like.B = p.B, like.T = p.T;
  like.cu_seqlens = p.cu_seqlens, like.cu_seqlens_host = p.cu_seqlens_host, like.sequences = p.sequences;
  if (refused(check_sequences(KDACHECK_CUDA_RECURRENCE, like))) return checked;
  GateArguments& args = checked.args;
  const std::array rules{TensorRule{"g", &p.g, p.HV, p.K, true, &args.call.g},
                         TensorRule{"log_decay", &p.log_decay, p.HV, p.K, p.log_decay.data != nullptr, &args.log_decay, true},
                         TensorRule{"sums", &p.sums, p.HV, p.K, p.sums.data != nullptr, &args.sums, true}};
  for (const TensorRule& rule : rules) {
    if (refused(check_tensor(KDACHECK_CUDA_RECURRENCE, like, rule))) return checked;
    if (rule.tensor->data != nullptr) checked.device_pointers.push_back(rule.tensor->data);
  }
  for (const void* pointer : std::array<const void*, 3>{p.A_log, p.dt_bias, p.cu_seqlens})
    if (pointer != nullptr) checked.device_pointers.push_back(pointer);
  const bool packed = p.cu_seqlens != nullptr;
  args.slots = packed ? p.T / p.chunk + p.sequences : p.B * ((p.T + p.chunk - 1) / p.chunk);
  if (args.slots > 2147483647 / p.HV) {
    refused(refuse(KDACHECK_CUDA_BAD_SHAPE, "too many chunks times heads for one launch"));
    return checked;
  }
  args.chunk = static_cast<int>(p.chunk);
  args.call.A_log = p.A_log, args.call.dt_bias = p.dt_bias, args.call.cu_seqlens = p.cu_seqlens;
  args.call.N = packed ? p.sequences : p.B, args.call.T = p.T;
  args.call.HV = static_cast<int>(p.HV), args.call.K = static_cast<int>(p.K);
  args.call.gate = static_cast<Gate>(p.gate), args.call.gate_format = static_cast<Stored>(p.g.format);
  args.call.lower_bound = p.lower_bound;
  args.log_decay_format = static_cast<Stored>(p.log_decay.format), args.sums_format = static_cast<Stored>(p.sums.format);
  return checked;
}

} // namespace kdacheck::cuda
